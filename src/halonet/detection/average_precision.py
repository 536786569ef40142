"""Average precision of boxes and masks, as COCO defines it and COCO's own tools compute it."""

import contextlib
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from halonet.data.detection.coco_file import distinct_labels
from halonet.errors import UserError, unknown_name
from halonet.installation import command_for_extra

# Indices in COCO's tables: precision [IoU, recall, class, area, detections], recall [IoU, class, area, detections].
AREAS = {"": 0, "_small": 1, "_medium": 2, "_large": 3}
DETECTIONS = {"1": 0, "10": 1, "100": 2}
IOU_50, IOU_75 = 0, 5
FIELDS = {"bbox": "bbox", "segm": "segmentation"}


@dataclass(frozen=True)
class AveragePrecision:
    """How well boxes or masks were found.

    Attributes:
        summary: COCO's twelve numbers, from 0 to 1: `ap` (mean over the IoU thresholds 0.50 to 0.95), `ap50`, `ap75`,
            `ap_small`, `ap_medium`, `ap_large`; the average recall with 1, 10 and 100 detections per image, `ar1`,
            `ar10`, `ar100`, and with 100 by area, `ar_small`, `ar_medium`, `ar_large`. None without such ground truth.
        per_class: `ap` by class name, in the order of the category ids; None for a class without ground truth. If
            several classes have the same name, their supercategory or id follows it.
        precision: For IoU "0.50", "0.75" and "0.50:0.95", the precision at the recalls 0, 0.01, ..., 1: the mean over
            the classes with ground truth; empty without any. Its mean is `ap50`, `ap75` or `ap`.
    """

    summary: dict[str, float | None]
    per_class: dict[str, float | None]
    precision: dict[str, list[float]]


def average_precision(
    ground_truth: dict[str, Any],
    results: Sequence[dict[str, Any]],
    kind: Literal["bbox", "segm"],
    *,
    evaluator: Literal["pycocotools", "faster-coco-eval"] = "pycocotools",
) -> AveragePrecision:
    """Compare results with the ground truth.

    Masks count as small, medium or large by their own area. For results with both, pycocotools would take the area of
    the box, so for `segm` it is given the masks alone, as in Detectron2 and torchvision.

    Args:
        ground_truth: The content of a COCO file of instances: `images`, `annotations` and `categories`. Not changed.
        results: Detections in these images in COCO's results format, as `to_results` returns them. Not changed.
        kind: Compare boxes ("bbox") or masks ("segm").
        evaluator: pycocotools, the reference, or faster-coco-eval, which returns the same numbers faster.

    Returns:
        The numbers, ready for JSON; 0 without results.

    Raises:
        UserError: The image or category of a result is not in the ground truth, a result or an annotation lacks what
            `kind` needs, or the evaluator is unknown or not installed.
    """
    if kind not in FIELDS:
        raise UserError(unknown_name("kind of average precision", kind, FIELDS))
    # Fail early if the tool is missing.
    dataset_class, comparison_class = _import_tool(evaluator)
    truth, detections = _copy_truth(ground_truth), _copy_results(ground_truth, results, kind)
    # These libraries print to the standard output, which belongs to the caller.
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = dataset_class()
        dataset.dataset = truth
        dataset.createIndex()
        if detections:
            found = dataset.loadRes(detections)
        else:
            found = dataset_class()
            found.dataset = truth | {"annotations": []}
            found.createIndex()
        comparison = comparison_class(dataset, found, kind)
        comparison.evaluate()
        comparison.accumulate()
    categories = sorted(truth["categories"], key=lambda category: category["id"])
    labels = distinct_labels([category["name"] for category in categories], categories)
    precision, recall = (np.asarray(comparison.eval[table]) for table in ("precision", "recall"))
    return _summarize(precision, recall, labels)


def _import_tool(evaluator: str) -> tuple[Any, Any]:
    """Return the classes for a data set and for a comparison."""
    try:
        if evaluator == "pycocotools":
            from pycocotools.coco import COCO
            from pycocotools.cocoeval import COCOeval
        elif evaluator == "faster-coco-eval":
            from faster_coco_eval import COCO, COCOeval_faster as COCOeval
        else:
            raise UserError(unknown_name("evaluator", evaluator, ["pycocotools", "faster-coco-eval"]))
    except ImportError as error:
        raise UserError(f"average precision needs {evaluator}: {command_for_extra('detection')}") from error
    return COCO, COCOeval


def _copy_truth(ground_truth: dict[str, Any]) -> dict[str, Any]:
    """Copy the ground truth as deeply as the tools change it."""
    annotations = []
    for number, annotation in enumerate(ground_truth["annotations"], 1):
        if "area" not in annotation:
            raise UserError(
                f"annotation {annotation.get('id')} of the ground truth has no 'area': COCO's annotations tell the"
                " pixels of their mask, from which small, medium and large follow"
            )
        # Numbered from 1: the tools take the id 0 for "not found".
        annotations.append({"iscrowd": 0} | annotation | {"id": number})
    copies = {key: [dict(entry) for entry in ground_truth[key]] for key in ("images", "categories")}
    return copies | {"annotations": annotations}


def _copy_results(ground_truth: dict[str, Any], results: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Copy only what the tools need: they compute areas from boxes if there are any."""
    known = {
        f"{name}_id": {entry["id"] for entry in ground_truth[key]}
        for name, key in (("image", "images"), ("category", "categories"))
    }
    copies = []
    for index, result in enumerate(results):
        for key, ids in known.items():
            if result[key] not in ids:
                raise UserError(_unknown_id(index, key, result[key], ids))
        if FIELDS[kind] not in result:
            raise UserError(f"result {index} has no {FIELDS[kind]!r}, which average precision of {kind!r} needs")
        copies.append({key: result[key] for key in ("image_id", "category_id", "score", FIELDS[kind])})
    return copies


def _unknown_id(index: int, key: str, value: object, ids: Collection[object]) -> str:
    shown = ", ".join(str(number) for number in sorted(ids, key=str)[:5])
    return (
        f"result {index} has {key} {value!r}, which is not among the {len(ids)} of the ground truth"
        f" ({shown}{', ...' if len(ids) > 5 else ''}); compare results with the annotations of the same images"
    )


def _summarize(
    precision: Float[np.ndarray, "ious recalls classes areas detections"],
    recall: Float[np.ndarray, "ious classes areas detections"],
    names: list[str],
) -> AveragePrecision:
    summary = {f"ap{area}": _mean(precision[:, :, :, index, -1]) for area, index in AREAS.items()}
    summary |= {"ap50": _mean(precision[IOU_50, :, :, 0, -1]), "ap75": _mean(precision[IOU_75, :, :, 0, -1])}
    summary |= {f"ar{count}": _mean(recall[:, :, 0, index]) for count, index in DETECTIONS.items()}
    summary |= {f"ar{area}": _mean(recall[:, :, index, -1]) for area, index in AREAS.items() if area}
    order = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    order += ("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large")
    # For all areas and the most detections. A class has ground truth in all entries or in none.
    overall = precision[:, :, :, 0, -1]
    has_truth = overall[0, 0] > -1
    curves = overall[:, :, has_truth].mean(2) if has_truth.any() else overall[:, :0, 0]
    return AveragePrecision(
        summary={name: summary[name] for name in order},
        per_class={name: _mean(overall[:, :, index]) for index, name in enumerate(names)},
        precision={
            "0.50": curves[IOU_50].tolist(),
            "0.75": curves[IOU_75].tolist(),
            "0.50:0.95": curves.mean(0).tolist(),
        },
    )


def _mean(table: Float[np.ndarray, "..."]) -> float | None:
    """Average a table without -1, by which the tools mark missing ground truth."""
    values = table[table > -1]
    return float(values.mean()) if values.size else None
