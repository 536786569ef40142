"""Loss and accuracy as sums that add up over batches, processes and interruptions."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from halonet.engine.device import sum_dtype

TOP1 = 1  # index of the top-1 hits in the sums


def classification_sums(logits: Float[Tensor, "batch classes"], targets: Int[Tensor, " batch"]) -> Float[Tensor, " 4"]:
    """Compute the sums over a batch that `summarize` needs.

    Args:
        logits: Any floating dtype; the loss is computed in float32.
        targets: Class indices.

    Returns:
        Sums of cross-entropy, top-1 hits, top-5 hits and images, in float64 where the device has it, so that sums over
        any data set stay exact enough.
    """
    loss = F.cross_entropy(logits.float(), targets, reduction="sum")
    right = logits.topk(min(5, logits.shape[1]), dim=1).indices == targets[:, None]
    sums = torch.stack([loss, right[:, 0].sum(), right.sum(), targets.new_full((), len(targets))])
    return sums.to(sum_dtype(logits.device))


def summarize(sums: Float[Tensor, " 4"]) -> dict[str, float]:
    """Compute `loss` (mean cross-entropy in nats), `top1` and `top5` (percent) from sums over one or more images."""
    loss, top1, top5, images = sums.tolist()
    return {"loss": loss / images, "top1": 100 * top1 / images, "top5": 100 * top5 / images}


def wilson_interval(right: float, images: int, deviations: float = 1.959964) -> tuple[float, float]:
    """The Wilson interval (1927) of an accuracy that was measured on a sample of images.

    Args:
        right: Correctly labeled images of the sample.
        images: Images of the sample, at least one.
        deviations: Half width in standard deviations; 1.96 gives 95 %.

    Returns:
        Lower and upper end, in percent.
    """
    share, spread = right / images, deviations**2 / images
    middle = share + spread / 2
    half = deviations * math.sqrt(share * (1 - share) / images + spread / (4 * images))
    return max(0.0, 100 * (middle - half) / (1 + spread)), min(100.0, 100 * (middle + half) / (1 + spread))
