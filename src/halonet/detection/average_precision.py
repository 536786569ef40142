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

# Places in COCO's tables: precision [IoU, recall, class, area, detections], recall [IoU, class, area, detections].
AREAS = {"": 0, "_small": 1, "_medium": 2, "_large": 3}
DETECTIONS = {"1": 0, "10": 1, "100": 2}
IOU_50, IOU_75 = 0, 5
FIELDS = {"bbox": "bbox", "segm": "segmentation"}


@dataclass(frozen=True)
class AveragePrecision:
    """How well boxes or masks were found.

    Attributes:
        summary: COCO's twelve numbers, from 0 to 1: `ap` (mean over the IoU thresholds 0.50 to 0.95), `ap50`, `ap75`,
            `ap_small`, `ap_medium`, `ap_large`; the average recall with 1, 10 and 100 detections an image, `ar1`,
            `ar10`, `ar100`, and with 100 by area, `ar_small`, `ar_medium`, `ar_large`. None where there is no such
            ground truth.
        per_class: `ap` by the class's name, in the order of the category ids; None for a class without ground truth. A
            name that several classes have is followed by their supercategory or id.
        precision: For IoU "0.50", "0.75" and "0.50:0.95", the precision at the recalls 0, 0.01, ..., 1: the mean over
            the classes that have ground truth; empty if none has. Its mean is `ap50`, `ap75` or `ap`.
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

    Masks count as small, medium or large by their own area, not by their box's: pycocotools takes the box's for a
    detection that has both, so that `segm` gets the masks alone, as in Detectron2 and torchvision.

    Args:
        ground_truth: What a COCO file of instances holds: `images`, `annotations` and `categories`. Not changed.
        results: Detections of these images in COCO's results format, as `to_results` writes them. Not changed.
        kind: Compare boxes ("bbox") or masks ("segm").
        evaluator: Whose code computes: pycocotools, the figure of record, or faster-coco-eval, which returns the same
            numbers sooner.

    Returns:
        The numbers, ready for JSON; 0 without results.

    Raises:
        UserError: If a result's image or category is not in the ground truth, if a result or an annotation lacks what
            `kind` needs, or if the evaluator is unknown or not installed.
    """
    if kind not in FIELDS:
        raise UserError(unknown_name("kind of average precision", kind, FIELDS))
    # Imported first: whoever lacks the tool should hear of it before of anything else.
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
    """The classes of a data set and of a comparison."""
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
    """A copy as deep as the tools write into it."""
    annotations = []
    for number, annotation in enumerate(ground_truth["annotations"], 1):
        if "area" not in annotation:
            raise UserError(
                f"annotation {annotation.get('id')} of the ground truth has no 'area': COCO's annotations tell the"
                " pixels of their mask, from which small, medium and large follow"
            )
        # Numbered anew: the tools take an annotation with the id 0 for one that was never found.
        annotations.append({"iscrowd": 0} | annotation | {"id": number})
    copies = {key: [dict(entry) for entry in ground_truth[key]] for key in ("images", "categories")}
    return copies | {"annotations": annotations}


def _copy_results(ground_truth: dict[str, Any], results: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """What the tools need of the results, and no more: what they find decides what they compute the area from."""
    known = {
        f"{name}_id": {entry["id"] for entry in ground_truth[key]}
        for name, key in (("image", "images"), ("category", "categories"))
    }
    copies = []
    for place, result in enumerate(results):
        for key, ids in known.items():
            if result[key] not in ids:
                raise UserError(_unknown_id(place, key, result[key], ids))
        if FIELDS[kind] not in result:
            raise UserError(f"result {place} has no {FIELDS[kind]!r}, which average precision of {kind!r} needs")
        copies.append({key: result[key] for key in ("image_id", "category_id", "score", FIELDS[kind])})
    return copies


def _unknown_id(place: int, key: str, value: object, ids: Collection[object]) -> str:
    shown = ", ".join(str(number) for number in sorted(ids, key=str)[:5])
    return (
        f"result {place} has {key} {value!r}, which is not among the {len(ids)} of the ground truth"
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
    # Of all areas, with the most detections; a class has ground truth everywhere or nowhere.
    overall = precision[:, :, :, 0, -1]
    there = overall[0, 0] > -1
    curves = overall[:, :, there].mean(2) if there.any() else overall[:, :0, 0]
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
    """The mean of what is there: the tools write -1 where there is no ground truth."""
    there = table[table > -1]
    return float(there.mean()) if there.size else None
