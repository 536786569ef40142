"""Detections in COCO's results format, which COCO's tools and server read."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import expand_boxes, expand_masks

from halonet.data.detection.coco_masks import decompress
from halonet.errors import UserError
from halonet.installation import command_for_extra


def to_results(
    detection: Mapping[str, Tensor],
    image_id: int,
    category_ids: Sequence[int],
    mask_threshold: float = 0.5,
    *,
    size: Sequence[int],
) -> list[dict[str, Any]]:
    """Write the detections of one image in COCO's results format.

    Masks are stretched over their boxes one at a time, as in torchvision, and encoded at once: in a photo of 12
    megapixels the largest takes 50 MB, where a hundred full-size masks would take 5 GB.

    Args:
        detection: As `FasterRCNN.detect` returns it for an image: `boxes`, floats [n, 4] as x0, y0, x1, y1 in pixels;
            `labels`, int64 [n] from 1; `scores`, floats [n]; for a Mask R-CNN `masks`, probabilities [n, 1, side,
            side]. On any device.
        image_id: The id of the image in the ground truth.
        category_ids: The category id of each class, in the order of the labels.
        mask_threshold: Pixels with a greater probability belong to the instance.
        size: Height and width of the image.

    Returns:
        A dictionary per detection, in order, ready for JSON: `image_id`, `category_id`, `score`, `bbox` (x, y, width
        and height in pixels, not rounded) and, if there are masks, `segmentation` (`size` and compressed run lengths,
        `counts`).

    Raises:
        UserError: A label has no category id, or pycocotools is not installed.
    """
    labels = detection["labels"].tolist()
    for label in labels:
        if not 1 <= label <= len(category_ids):
            raise UserError(
                f"the detector found label {label}, but there are {len(category_ids)} categories, with labels from 1;"
                " evaluate on a data set with the classes that the detector was trained on"
            )
    # Subtracted in float64, which is exact for float32 boxes.
    upper_left, lower_right = detection["boxes"].cpu().double().split(2, 1)
    boxes = torch.cat([upper_left, lower_right - upper_left], 1).tolist()
    results = [
        {"image_id": image_id, "category_id": category_ids[label - 1], "bbox": box, "score": score}
        for label, box, score in zip(labels, boxes, detection["scores"].tolist(), strict=True)
    ]
    if "masks" in detection:
        height, width = (int(side) for side in size)
        windows = _stretch(detection["masks"].detach().cpu().float(), detection["boxes"].cpu().float(), height, width)
        for result, (left, top, window) in zip(results, windows, strict=True):
            result["segmentation"] = encode(window > mask_threshold, left, top, height, width)
    return results


def encode(inside: Bool[np.ndarray, "rows columns"], left: int, top: int, height: int, width: int) -> dict[str, Any]:
    """Encode a mask as run lengths.

    Args:
        inside: The part of the mask that is not empty.
        left: Its first column in the image.
        top: Its first row in the image.
        height: Height of the image.
        width: Width of the image.

    Returns:
        COCO's `size` and compressed `counts`.

    Raises:
        UserError: pycocotools is not installed.
    """
    try:
        from pycocotools import mask as tools
    except ImportError as error:
        raise UserError(f"results of detection need pycocotools: {command_for_extra('detection')}") from error
    rows, columns = inside.shape
    # Column by column; rows of zeros above and below end every run within its column.
    padded = np.zeros((columns, rows + 2), bool)
    padded[:, 1:-1] = inside.T
    flat = padded.ravel()
    column, row = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]) + 1, rows + 2)
    starts, ends = ((column + left) * height + row - 1 + top).reshape(-1, 2).T
    apart = starts[1:] != ends[:-1]  # a run to the bottom of the image goes on in the next column
    starts, ends = np.concatenate([starts[:1], starts[1:][apart]]), np.concatenate([ends[:-1][apart], ends[-1:]])
    edges = np.concatenate([[0], np.stack([starts, ends], 1).ravel(), [height * width]])
    counts = np.diff(edges)
    counts = counts[: len(counts) - (counts[-1] == 0)]  # as in pycocotools, the last run is inside the mask
    encoded: Any = tools.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}


class Masks(Sequence[Bool[np.ndarray, "height width"]]):
    """The masks of results, each decoded when it is indexed: all together could take too much memory.

    Args:
        results: As `to_results` returns them.
    """

    def __init__(self, results: Sequence[dict[str, Any]]) -> None:
        self._results = results

    def __len__(self) -> int:
        """Return the number of masks."""
        return len(self._results)

    def __getitem__(self, index: Any) -> Any:
        """Decode one mask; slices are not supported."""
        mask = self._results[index]["segmentation"]
        height, width = mask["size"]
        counts = decompress(mask["counts"])
        return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T


def _stretch(masks: Tensor, boxes: Tensor, height: int, width: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Stretch each mask over its box, as torchvision does; yield first column, first row and pixels."""
    masks, scale = expand_masks(masks, padding=1)
    for mask, box in zip(masks, expand_boxes(boxes, scale).to(torch.int64).tolist(), strict=True):
        x0, y0, x1, y1 = box
        sides = (max(y1 - y0 + 1, 1), max(x1 - x0 + 1, 1))
        drawn = F.interpolate(mask[None], sides, mode="bilinear", align_corners=False)[0, 0]
        left, top = max(x0, 0), max(y0, 0)
        drawn = drawn[top - y0 : max(0, min(y1 + 1, height) - y0), left - x0 : max(0, min(x1 + 1, width) - x0)]
        yield left, top, drawn.numpy()
