"""Measuring a detector on a data set: COCO's average precision of boxes and masks."""

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
        data: "nuclei" or a folder, as `halonet.data.load_detection_source` takes it; None takes what the checkpoint was
            trained on.
        split: Of the data; None takes what the training took for its test.
        workers: Processes that load images; 0 loads in this one.
        device: "cpu", "cuda", ...; "auto" takes an accelerator if there is one.
        evaluator: "pycocotools", the figure of record, or "faster-coco-eval".
        results_file: Where to write the detections, in COCO's results format, or None.
        plot_file: Where to draw precision over recall, or None.

    Returns:
        In percent, `box_ap`, `box_ap50`, `box_ap75`, `box_ap_small`, `box_ap_medium`, `box_ap_large`, the average
        recalls `box_ar1` ... `box_ar_large`, the same for `mask_` (None where there is no such ground truth), and
        `per_class`: by class, its `box_ap` and `mask_ap`; a name that several classes have is followed by their
        supercategory or id. Nothing of masks is told where the detector or the data has none. Also `images`,
        `images_per_second` (without the comparison), `seconds`, and what was measured where: `checkpoint`,
        `parameters`, `data`, `split`, `device`, `evaluator`.

    Raises:
        UserError: The checkpoint or the data cannot be read, the data's classes are not the checkpoint's, or a file
            cannot be written, which is found out first.
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
        warnings.warn(UserNote(f"{data} ({split}) has no masks: boxes alone are measured"), stacklevel=2)
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
        category_ids: The data's category by the detector's label - 1; None for a class that the data does not have,
            of which nothing is yielded.
        device: The detector's.
        workers: Processes that load images; 0 loads in this one.
    """
    dataset = KeyedDetections(source, build_detection_transform(augmentation, train=False), seed=0, train=False)
    loader = DataLoader(dataset, batch_size=1, num_workers=workers, collate_fn=collate, worker_init_fn=shield_worker)
    known = torch.tensor([False, *(category is not None for category in category_ids)])
    places = [0 if category is None else category for category in category_ids]
    for images, targets in loader:
        (detection,) = detector.detect([image.to(device) for image in images])
        kept = known.to(device)[detection["labels"]]
        detection = {name: each[kept] for name, each in detection.items()}
        yield from to_results(detection, targets[0]["image_id"], places, size=images[0].shape[-2:])


def match_categories(source: DetectionSource, class_names: Sequence[str]) -> list[int | None]:
    """Find the data's category for each class of a checkpoint, by name; equal names pair up in their order.

    Args:
        source: The data; its classes may be some of the checkpoint's, in any order.
        class_names: The checkpoint's, by label - 1.

    Returns:
        The data's category id, or None where the data has no such class, by label - 1.

    Raises:
        UserError: A class of the data is none of the checkpoint's.
    """
    ids: list[int | None] = [None] * len(class_names)
    for label, category in zip(place_names(source.class_names, class_names), source.category_ids, strict=True):
        ids[label] = category
    return ids


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
