"""Selecting the annotations that can be used for training and evaluation, with reasons for the others."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float64

from halonet.data.detection.coco_file import CocoFile, Faults
from halonet.data.detection.coco_masks import FARTHEST, NO_MASK, mask_faults, run_lengths

MASK_BYTES = 8 * 2**30  # limit for the masks of one image

FAR_BOX = "whose box is not finite or leads too far"
NEGATIVE = "whose box has a negative width or height"
NO_AREA = "whose box has no area inside its image"  # COCO evaluates against it, but no detector can find it


@dataclass
class Usable:
    """The usable annotations of a file.

    Attributes:
        measured: Annotations for evaluation, crowds included.
        learned: The `id` of each annotation for training.
        has_masks: Whether these annotations have masks.
        without_mask: How many objects, crowds excluded, have no mask.
        notes: Sentences for the user.
    """

    measured: list[dict[str, Any]]
    learned: set[int]
    has_masks: bool
    without_mask: int
    notes: list[str] = field(default_factory=list)


def choose_usable(content: CocoFile, faults: Faults, masks: bool | None) -> Usable:
    """Leave out annotations that cannot be used, and complete the areas of the others.

    Args:
        content: The file's content.
        faults: Collects reasons to refuse the whole file.
        masks: Whether masks are needed; None needs them if there are any.
    """
    annotations, images = content.annotations, content.images
    objects = [annotation for annotation in annotations if not annotation["iscrowd"]]
    without_mask = sum(not annotation.get("segmentation") for annotation in objects)
    has_masks = (without_mask < len(objects) or not objects) if masks is None else masks
    if masks and objects and without_mask == len(objects):
        faults.add("no annotation has a mask, which this detector needs: train on boxes with --model.masks false")
    sizes = [_size(images[annotation["image_id"]]) for annotation in annotations]
    boxes = _as_array([annotation["bbox"] for annotation in annotations])
    reasons = _box_faults(boxes, np.array(sizes, np.float64).reshape(-1, 2))
    if has_masks:
        mask_reasons = mask_faults([annotation.get("segmentation") for annotation in annotations], sizes)
        reasons = [
            mask_reason if reason in (None, NO_AREA) and mask_reason else reason
            for reason, mask_reason in zip(reasons, mask_reasons, strict=True)
        ]
        _limit_masks(content, faults)
    kept = [index for index, reason in enumerate(reasons) if reason in (None, NO_AREA)]
    learned = [index for index in kept if not annotations[index]["iscrowd"] and reasons[index] is None]
    notes = []
    if content.as_text:
        notes.append(f"{content.as_text:,} numbers are written as text, and are read as numbers")
    if replaced := _complete_areas([annotations[index] for index in kept], images, has_masks):
        notes.append(f"{replaced:,} areas are not finite numbers of at least 0, and are computed again")
    notes += _describe(annotations, reasons)
    crowds = len(annotations) - len(objects)
    if 2 * crowds > len(annotations):
        notes.append(
            f"{crowds:,} of {len(annotations):,} annotations are crowds (iscrowd 1), which are not learned: set "
            "iscrowd to 0 for single objects"
        )
    if annotations and not kept and not faults.found:
        faults.add("; ".join(notes) + ": no annotation is usable")
    return Usable(
        [annotations[index] for index in kept],
        {annotations[index]["id"] for index in learned},
        has_masks,
        without_mask,
        notes,
    )


def _size(image: dict[str, Any]) -> tuple[int, int]:
    return image["height"], image["width"]


def _as_array(boxes: list[list[Any]]) -> Float64[np.ndarray, "annotations 4"]:
    try:
        return np.array(boxes, np.float64).reshape(-1, 4)
    except OverflowError:  # a whole number of hundreds of digits
        return np.array([[min(side, 1e300) for side in box] for box in boxes], np.float64)


def _box_faults(
    boxes: Float64[np.ndarray, "annotations 4"], sizes: Float64[np.ndarray, "annotations 2"]
) -> list[str | None]:
    with np.errstate(invalid="ignore", over="ignore"):
        far = ~(np.abs(boxes) <= FARTHEST).all(1)
        negative = (boxes[:, 2:] < 0).any(1)
        clipped = np.minimum(boxes[:, :2] + boxes[:, 2:], sizes[:, ::-1]) - np.maximum(boxes[:, :2], 0)
        empty = ~(clipped > 0).all(1)
    found: list[str | None] = [None] * len(boxes)
    for reason, holds in ((NO_AREA, empty), (NEGATIVE, negative), (FAR_BOX, far)):
        for index in np.flatnonzero(holds).tolist():
            found[index] = reason
    return found


def _limit_masks(content: CocoFile, faults: Faults) -> None:
    """Refuse images whose masks together would not fit into memory."""
    for image, count in Counter(annotation["image_id"] for annotation in content.annotations).items():
        size = count * content.images[image]["height"] * content.images[image]["width"]
        if size > MASK_BYTES:
            faults.add(
                f"the masks of image {image} take {size / 2**30:,.0f} GiB, but may take {MASK_BYTES // 2**30}: cut the "
                "image into parts, or leave masks out with --model.masks false"
            )


def _complete_areas(annotations: Sequence[dict[str, Any]], images: dict[int, Any], has_masks: bool) -> int:
    """Fill in missing and invalid areas; returns the number of invalid ones."""
    replaced = 0
    for annotation in annotations:
        area = annotation.get("area")
        if (type(area) is float or type(area) is int) and 0 <= area < 2**53:
            continue
        replaced += area is not None
        if has_masks:
            height, width = _size(images[annotation["image_id"]])
            annotation["area"] = float(sum(run_lengths(annotation["segmentation"], height, width)[1::2]))
        else:
            annotation["area"] = float(annotation["bbox"][2] * annotation["bbox"][3])
    return replaced


def _describe(annotations: list[dict[str, Any]], reasons: list[str | None]) -> list[str]:
    """One sentence that counts what is left out, by reason, with the first example of each."""
    by_reason: dict[str, list[Any]] = {}
    for annotation, reason in zip(annotations, reasons, strict=True):
        if reason is not None:
            by_reason.setdefault(reason, []).append(annotation["id"])
    if not by_reason:
        return []
    measured = {NO_AREA: ", though evaluation counts them"}
    parts = [
        f"{len(ids):,} {reason}{measured.get(reason, '')} (the first: annotation {ids[0]})"
        for reason, ids in by_reason.items()
    ]
    total = sum(map(len, by_reason.values()))
    remedy = f" (--model.masks false learns boxes only, and uses those {NO_MASK})" if NO_MASK in by_reason else ""
    return [f"{total:,} of {len(annotations):,} annotations are left out: {', '.join(parts)}{remedy}"]
