"""Measures a checkpoint on a data set."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from halonet.classification.checkpoint import load_checkpoint
from halonet.classification.metrics import TOP1, classification_sums, summarize, wilson_interval
from halonet.data import AugmentationConfig, KeyedDataset, build_transform, load_source
from halonet.data.class_names import place_names
from halonet.data.classification.sources import available_splits, require_asked_for
from halonet.data.classification.survey import survey
from halonet.engine.device import choose_device
from halonet.errors import UserError
from halonet.interrupts import shield_worker
from halonet.rules import Count, Workers, check_arguments
from halonet.schemas import check


def evaluate(
    checkpoint: str | Path,
    data: str | None = None,
    split: str | None = None,
    *,
    root: str | Path | None = None,
    batch_size: int = 256,
    workers: int = 0,
    device: str = "auto",
) -> dict[str, Any]:
    """Measure a checkpoint on the images of a data set.

    Args:
        checkpoint: A run folder, a `model.safetensors` or a `.ckpt`.
        data: A named data set or a folder of class folders; by default the data of the training.
        split: A split of the data; by default the test split of the training, or "test". In other data without splits,
            all images are taken.
        root: The folder of a named data set; by default that of the training, if `data` is its data.
        batch_size: Images per batch.
        workers: Processes that load images; 0 loads in this one.
        device: "cpu", "cuda", ...; "auto" takes an accelerator if there is one.

    Returns:
        `top1` and `top5` (percent), `top1_interval` (the ends of the 95 % interval of top-1), `loss` (nats), `images`,
        `classes` (of the network), `images_per_second`, `seconds`, and what was measured where: `checkpoint`,
        `parameters`, `data`, `variant` (for a data set with several, or None), `split`, `device`.

    Raises:
        UserError: The checkpoint, the data or some of its images cannot be read, their classes differ, or the
            checkpoint names data that would have to be downloaded.
    """
    check_arguments(batch_size=(batch_size, Count), workers=(workers, Workers))
    network, information = load_checkpoint(checkpoint)
    if data is None and "data" not in information:
        raise UserError(f"{checkpoint} does not say what data it was trained on: name some with --data")
    if data is None:
        require_asked_for(information["data"], None, str(checkpoint), "--data")
    is_own = data in (None, information.get("data"))
    if root is None and is_own:
        root = information.get("root")
    data = str(information["data"] if data is None else data)
    root = None if root is None else Path(root)
    random_hold_out = {name: information[name] for name in ("hold_out", "seed") if is_own and name in information}
    if split is None:
        split = str(information.get("test_split", "test"))
        if not is_own and (available := available_splits(data, root=root))[-1] == "all":
            split = available[-1]
    source = load_source(data, split, root=root, **random_hold_out)
    labels = match_classes(source.class_names, information.get("class_names", source.class_names))
    transform = build_transform(preprocessing(information, str(checkpoint)), train=False)
    survey([source], f"{data} ({split})")
    loader = DataLoader(
        KeyedDataset(source, transform, seed=0, train=False),
        batch_size=batch_size,
        num_workers=workers,
        worker_init_fn=shield_worker,
    )
    target = choose_device(device)
    start = time.monotonic()
    sums = _sums(network.to(target), loader, torch.tensor(labels), target)
    seconds = time.monotonic() - start
    return summarize(sums) | {
        "top1_interval": list(wilson_interval(sums[TOP1].item(), len(source))),
        "images": len(source),
        "classes": information["num_classes"],
        "images_per_second": len(source) / seconds,
        "seconds": seconds,
        "checkpoint": str(checkpoint),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "data": data,
        "variant": getattr(source, "variant", None),
        "split": split,
        "device": str(target),
    }


def describe_accuracy(result: dict[str, Any]) -> str:
    """Describe an accuracy: top-1 with its interval, top-5 if there are more than five classes, and the loss.

    Args:
        result: As `evaluate` returns it, or the result of a run; old ones have no interval.
    """
    interval = ""
    if "top1_interval" in result:
        low, high = result["top1_interval"]
        interval = f" (95 % interval {low:.1f} to {high:.1f})"
    top5 = f", top-5 {result['top5']:.2f} %" if result.get("classes", 6) > 5 else ""
    return f"top-1 {result['top1']:.2f} %{interval}{top5}, loss {result['loss']:.4f}"


def match_classes(data_names: Sequence[str], checkpoint_names: Sequence[str]) -> list[int]:
    """Find the label in the checkpoint for each class of a data set.

    Args:
        data_names: The class names of the data set, in the order of its labels. They may be a subset of the
            checkpoint's, in any order (equal names are paired in order), or numbers from 0 if there are as many as in
            the checkpoint.
        checkpoint_names: The class names of the checkpoint, in the order of its labels.

    Raises:
        UserError: The checkpoint lacks a class of the data.
    """
    if list(data_names) == [str(number) for number in range(len(checkpoint_names))]:
        return list(range(len(checkpoint_names)))
    return place_names(data_names, checkpoint_names)


def preprocessing(information: dict[str, Any], source: str) -> AugmentationConfig:
    """The preprocessing that a checkpoint was trained with; `source` names the checkpoint in messages.

    Raises:
        UserError: The checkpoint does not say.
    """
    if "preprocessing" not in information:
        raise UserError(
            f"{source} does not say how images were prepared for it (size, mean, standard deviation), or they were not "
            "square center crops of 1 or 3 channels, which halonet makes"
        )
    return check(AugmentationConfig, information["preprocessing"], f"the preprocessing in {source}")


@torch.inference_mode()
def _sums(network: nn.Module, loader: DataLoader, labels: Tensor, device: torch.device) -> Tensor:
    batches = (
        classification_sums(network(images.to(device)), labels[targets].to(device)) for images, targets in loader
    )
    return torch.stack(list(batches)).sum(0)
