"""Measures a detector on a data set: COCO's average precision of boxes and masks."""

import json
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader

from halonet.data.class_names import place_names
from halonet.data.detection.coco import DetectionSource, load_detection_source
from halonet.data.detection.coco_file import distinct_labels
from halonet.data.detection.dataset import (
    DetectionAugmentation,
    KeyedDetections,
    build_detection_transform,
    collate,
)
from halonet.detection.average_precision import average_precision
from halonet.detection.checkpoint import load_detector
from halonet.detection.mask_rcnn import FasterRCNN
from halonet.detection.results import to_results
from halonet.engine.device import choose_device
from halonet.engine.files import PICTURES, check_output_file, explain_full_disk, write_atomically
from halonet.errors import UserError, UserNote
from halonet.interrupts import shield_worker
from halonet.rules import Workers, check_arguments
from halonet.visual.precision_recall import draw_precision_recall

KINDS: dict[str, Literal["bbox", "segm"]] = {"box": "bbox", "mask": "segm"}


def evaluate(
    checkpoint: str | Path,
    data: str | None = None,
    split: str | None = None,
    *,
    workers: int = 0,
    device: str = "auto",
    evaluator: Literal["pycocotools", "faster-coco-eval"] = "pycocotools",
    results_file: str | Path | None = None,
    plot_file: str | Path | None = None,
) -> dict[str, Any]:
    """Measure a detector on the images of a data set, one at a time.

    Args:
        checkpoint: A run folder, a `model.safetensors` or a `.ckpt`.
        data: "nuclei" or a folder, as in `halonet.data.load_detection_source`; by default the data of the training.
        split: A split of the data; by default the test split of the training.
        workers: Processes that load images; 0 loads in this one.
        device: "cpu", "cuda", ...; "auto" takes an accelerator if there is one.
        evaluator: "pycocotools", the reference, or "faster-coco-eval".
        results_file: Takes the detections in COCO's results format.
        plot_file: Takes a plot of precision over recall.

    Returns:
        In percent, `box_ap`, `box_ap50`, `box_ap75`, `box_ap_small`, `box_ap_medium`, `box_ap_large`, the average
        recalls `box_ar1` ... `box_ar_large`, the same for `mask_` (None without such ground truth), and `per_class`: by
        class, its `box_ap` and `mask_ap`; if several classes have the same name, their supercategory or id follows it.
        Masks are left out if the detector or the data has none. Also `images`, `images_per_second` (without the
        comparison), `seconds`, and what was measured where: `checkpoint`, `parameters`, `data`, `split`, `device`,
        `evaluator`.

    Raises:
        UserError: The checkpoint or the data cannot be read, the checkpoint lacks classes of the data, or a file cannot
            be written, which is checked first.
    """
    check_arguments(workers=(workers, Workers))
    if results_file is not None:
        check_output_file(results_file)
    if plot_file is not None:
        check_output_file(plot_file, PICTURES)
    detector, information = load_detector(checkpoint)
    data = str(data or information.get("data") or "")
    split = str(split or information.get("test_split") or "")
    if not data or not split:
        raise UserError(f"{checkpoint} does not say what data it was trained on: name some with --data and --split")
    masks = None if detector.has_masks else False
    source = load_detection_source(data, split, masks=masks, hold_out=information.get("hold_out") or 0.0)
    if detector.has_masks and not source.has_masks:
        warnings.warn(UserNote(f"{data} ({split}) has no masks: only boxes are measured"), stacklevel=2)
    category_ids = match_categories(source, information["class_names"])
    target = choose_device(device)
    start = time.monotonic()
    results = list(detect(detector.to(target), source, detector.augmentation, category_ids, target, workers))
    seconds = time.monotonic() - start
    measured: dict[str, Any] = {}
    labels = distinct_labels(source.class_names, source.ground_truth["categories"])
    per_class: dict[str, dict[str, float | None]] = {label: {} for label in labels}
    curves = {}
    for name, kind in KINDS.items():
        if name == "mask" and not (detector.has_masks and source.has_masks):
            continue
        precision = average_precision(source.ground_truth, results, kind, evaluator=evaluator)
        measured |= {f"{name}_{key}": _percent(value) for key, value in precision.summary.items()}
        for label, value in precision.per_class.items():
            per_class[label][f"{name}_ap"] = _percent(value)
        curves[name] = precision.precision
    if results_file is not None:
        content = json.dumps(results).encode()
        write_atomically(Path(results_file), lambda file: file.write(content))
    if plot_file is not None:
        with explain_full_disk(Path(plot_file)):
            draw_precision_recall(curves, plot_file)
    return measured | {
        "per_class": per_class,
        "images": len(source),
        "images_per_second": len(source) / seconds,
        "seconds": time.monotonic() - start,
        "checkpoint": str(checkpoint),
        "parameters": sum(parameter.numel() for parameter in detector.parameters()),
        "data": data,
        "split": split,
        "device": str(target),
        "evaluator": evaluator,
    }


@torch.inference_mode()
def detect(
    detector: FasterRCNN,
    source: DetectionSource,
    augmentation: DetectionAugmentation,
    category_ids: Sequence[int | None],
    device: torch.device,
    workers: int = 0,
) -> Iterator[dict[str, Any]]:
    """Yield the detections in the images of a source, in COCO's results format.

    Args:
        detector: In evaluation mode, on its device.
        source: The images.
        augmentation: How they are converted.
        category_ids: The category in the data by the detector's label - 1. Detections of a class are left out if this
            is None.
        device: The detector's.
        workers: Processes that load images; 0 loads in this one.
    """
    dataset = KeyedDetections(source, build_detection_transform(augmentation, train=False), seed=0, train=False)
    loader = DataLoader(dataset, batch_size=1, num_workers=workers, collate_fn=collate, worker_init_fn=shield_worker)
    known = torch.tensor([False, *(category is not None for category in category_ids)])
    ids = [0 if category is None else category for category in category_ids]  # 0 is never used
    for images, targets in loader:
        (detection,) = detector.detect([image.to(device) for image in images])
        kept = known.to(device)[detection["labels"]]
        detection = {name: each[kept] for name, each in detection.items()}
        yield from to_results(detection, targets[0]["image_id"], ids, size=images[0].shape[-2:])


def match_categories(source: DetectionSource, class_names: Sequence[str]) -> list[int | None]:
    """Find the category in the data for each class of a checkpoint; equal names are paired in order.

    Args:
        source: The data; its classes may be a subset of the checkpoint's, in any order.
        class_names: The class names of the checkpoint, in the order of its labels.

    Returns:
        The category id in the data, or None if the data lacks the class, by label - 1.

    Raises:
        UserError: The checkpoint lacks a class of the data.
    """
    ids: list[int | None] = [None] * len(class_names)
    for label, category in zip(place_names(source.class_names, class_names), source.category_ids, strict=True):
        ids[label] = category
    return ids


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
