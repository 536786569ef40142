"""From what a detector finds in an image to COCO's results, which COCO's tools and its server read."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from halonet.errors import UserError
from halonet.installation import command_for_extra


def to_results(
    detection: Mapping[str, Tensor], image_id: int, category_ids: Sequence[int], mask_threshold: float = 0.5
) -> list[dict[str, Any]]:
    """Write the detections of one image in COCO's results format.

    Args:
        detection: As torchvision's Mask R-CNN returns it for an image in evaluation mode: `boxes`, floats [n, 4] as
            x0, y0, x1, y1 in pixels; `labels`, int64 [n] from 1; `scores`, floats [n]; `masks`, probabilities
            [n, 1, height, width]. On any device.
        image_id: The image's id in the ground truth.
        category_ids: The category id of each class, in the order of the labels: that of label 1 first.
        mask_threshold: A pixel belongs to an instance if its probability is greater.

    Returns:
        A dictionary a detection, in the order given, ready for JSON: `image_id`, `category_id`, `score`, `bbox` (x, y,
        width and height in pixels, not rounded) and `segmentation` (`size` and compressed run lengths, `counts`).

    Raises:
        UserError: If a label has no category id, or pycocotools is not installed.
    """
    try:
        from pycocotools import mask as run_lengths
    except ImportError as error:
        raise UserError(f"results of detection need pycocotools: {command_for_extra('detection')}") from error
    labels = detection["labels"].tolist()
    for label in labels:
        if not 1 <= label <= len(category_ids):
            raise UserError(
                f"the detector found label {label}, but there are {len(category_ids)} categories, with labels from 1;"
                " evaluate on a data set with the classes that the detector was trained on"
            )
    # Subtracted in float64, so that a box loses nothing.
    upper_left, lower_right = detection["boxes"].cpu().double().split(2, 1)
    boxes = torch.cat([upper_left, lower_right - upper_left], 1).tolist()
    inside = (detection["masks"][:, 0] > mask_threshold).byte()
    # The encoder reads [height, width, n] column by column: in memory, that is [n, width, height].
    encoded: Any = run_lengths.encode(inside.transpose(1, 2).contiguous().cpu().numpy().T)
    columns = (labels, boxes, detection["scores"].tolist(), encoded)
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[label - 1],
            "bbox": box,
            "score": score,
            "segmentation": {"size": list(mask["size"]), "counts": mask["counts"].decode("ascii")},
        }
        for label, box, score, mask in zip(*columns, strict=True)
    ]
