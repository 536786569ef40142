import contextlib
import copy
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from halonet.detection.average_precision import AveragePrecision, average_precision
from halonet.errors import UserError
from halonet.installation import command_for_extra

EVALUATORS = ["pycocotools", "faster-coco-eval"]
KINDS = ["bbox", "segm"]
NAMES = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"]
NAMES += ["ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"]
SIDE = 300


def encode(box: list[float]) -> dict[str, Any]:
    """Encode an ellipse that fills a box."""
    x, y, width, height = box
    rows, columns = np.ogrid[:SIDE, :SIDE]
    inside = ((columns + 0.5 - x) / width - 0.5) ** 2 + ((rows + 0.5 - y) / height - 0.5) ** 2 <= 0.25
    encoded: Any = run_lengths.encode(np.asfortranarray(inside, np.uint8))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def make_truth(images: int = 12, crowds: bool = True) -> dict[str, Any]:
    """Make ground truth of four classes, the last without instances, in all of COCO's sizes."""
    random = np.random.default_rng(0)
    annotations = []
    for image in range(images):
        for number in range(6):
            side = (12, 24, 50, 80, 130, 160)[number]
            width, height = (side * random.uniform(0.8, 1.2, 2)).tolist()
            box = [random.uniform(0, SIDE - width), random.uniform(0, SIDE - height), width, height]
            mask: Any = encode(box)
            annotations.append(
                {
                    "id": 100 + len(annotations),
                    "image_id": 1000 + image,
                    "category_id": (3, 5, 8)[random.integers(3)],
                    "bbox": box,
                    "area": int(run_lengths.area(mask)),
                    "segmentation": mask,
                    "iscrowd": int(crowds and number == image % 6),
                }
            )
    return {
        "images": [{"id": 1000 + image, "height": SIDE, "width": SIDE} for image in range(images)],
        "annotations": annotations,
        "categories": [{"id": key, "name": name} for key, name in ((8, "cat"), (3, "ant"), (5, "bee"), (9, "dog"))],
    }


def perfect_results(truth: dict[str, Any]) -> list[dict[str, Any]]:
    kept = ("image_id", "category_id", "bbox", "segmentation")
    return [{key: each[key] for key in kept} | {"score": 0.9} for each in truth["annotations"] if not each["iscrowd"]]


def noisy_results(truth: dict[str, Any], each: int = 4) -> list[dict[str, Any]]:
    """Shift several copies of each instance, some of another class; scores repeat, so that order matters."""
    random = np.random.default_rng(1)
    results = []
    for annotation in truth["annotations"] * each:
        x, y, width, height = annotation["bbox"]
        shift, growth = random.normal(0, 0.12, 2), np.exp(random.normal(0, 0.12, 2))
        box = [x + shift[0] * width, y + shift[1] * height, width * growth[0], height * growth[1]]
        box = [float(number) for number in box]
        results.append(
            {
                "image_id": annotation["image_id"],
                "category_id": annotation["category_id"] if random.random() < 0.8 else int(random.choice([3, 5, 8, 9])),
                "score": round(float(random.random()), 2),
                "bbox": box,
                "segmentation": encode(box),
            }
        )
    return results


def measure(kind: Any, evaluator: Any, truth: dict[str, Any], results: list[dict[str, Any]]) -> AveragePrecision:
    return average_precision(truth, results, kind, evaluator=evaluator)


@pytest.mark.parametrize("evaluator", EVALUATORS)
@pytest.mark.parametrize("kind", KINDS)
def test_exact_detections_have_precision_one(kind: str, evaluator: str):
    truth = make_truth()
    found = measure(kind, evaluator, truth, perfect_results(truth))
    assert list(found.summary) == NAMES
    for name in set(NAMES) - {"ar1", "ar10"}:
        assert found.summary[name] == pytest.approx(1, abs=1e-12), name
    assert found.per_class == pytest.approx({"ant": 1, "bee": 1, "cat": 1, "dog": None})
    assert found.precision == {name: pytest.approx([1] * 101) for name in ("0.50", "0.75", "0.50:0.95")}


@pytest.mark.parametrize("kind", KINDS)
def test_detections_in_the_wrong_image_score_near_zero(kind: str):
    truth = make_truth()
    results = [
        result | {"image_id": 1000 + (result["image_id"] - 999) % len(truth["images"])}
        for result in perfect_results(truth)
    ]
    assert measure(kind, "pycocotools", truth, results).summary["ap"] == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_both_evaluators_return_the_same_numbers(kind: str):
    truth = make_truth()
    results = noisy_results(truth)
    record, fast = (measure(kind, evaluator, truth, results) for evaluator in EVALUATORS)
    assert 0.1 < (record.summary["ap"] or 0) < 0.9
    assert fast.summary == pytest.approx(record.summary, abs=1e-12)
    assert fast.per_class == pytest.approx(record.per_class, abs=1e-12)
    for name, curve in record.precision.items():
        assert fast.precision[name] == pytest.approx(curve, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_numbers_match_pycocotools(kind: Any, tmp_path: Path):
    truth = make_truth()
    results = noisy_results(truth)
    alone = "bbox" if kind == "bbox" else "segmentation"
    kept = [{key: result[key] for key in ("image_id", "category_id", "score", alone)} for result in results]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(kept))
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO(tmp_path / "truth.json")
        comparison = COCOeval(dataset, dataset.loadRes(str(tmp_path / "results.json")), kind)
        comparison.evaluate()
        comparison.accumulate()
        comparison.summarize()
    found = measure(kind, "pycocotools", truth, results)
    assert list(found.summary.values()) == list(comparison.stats)
    overall = comparison.eval["precision"][:, :, :, 0, 2]
    assert list(found.per_class) == ["ant", "bee", "cat", "dog"]
    assert list(found.per_class.values()) == [*(overall[:, :, index].mean() for index in range(3)), None]
    assert found.precision["0.75"] == overall[5, :, :3].mean(1).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_of_a_curve_is_the_average_precision(kind: str):
    truth = make_truth()
    found = measure(kind, "pycocotools", truth, noisy_results(truth))
    for name, curve in (("ap50", "0.50"), ("ap75", "0.75"), ("ap", "0.50:0.95")):
        assert np.mean(found.precision[curve]) == pytest.approx(found.summary[name])
    classes = [value for value in found.per_class.values() if value is not None]
    assert np.mean(classes) == pytest.approx(found.summary["ap"])


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_masks_are_small_or_large_by_their_own_area(evaluator: str):
    truth = make_truth(1, crowds=False)
    # Unmatched, with the mask of a small instance and the box of a large one: no false positive among the large.
    stray = {"segmentation": encode([0, 0, 8, 8]), "bbox": [0.0, 0.0, 200.0, 200.0], "score": 1.0}
    category = truth["annotations"][-1]["category_id"]
    results = [*perfect_results(truth), stray | {"image_id": 1000, "category_id": category}]
    summary = measure("segm", evaluator, truth, results).summary
    assert summary["ap_large"] == pytest.approx(1, abs=1e-12)
    assert (summary["ap"] or 0) < 0.95


@pytest.mark.parametrize("evaluator", EVALUATORS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_results_have_precision_zero(kind: str, evaluator: str):
    found = measure(kind, evaluator, make_truth(), [])
    assert set(found.summary.values()) == {0}
    assert found.per_class == {"ant": 0, "bee": 0, "cat": 0, "dog": None}
    assert found.precision["0.50"] == [0] * 101


@pytest.mark.parametrize("evaluator", EVALUATORS)
@pytest.mark.parametrize("found_some", [True, False])
def test_without_ground_truth_there_is_no_precision(found_some: bool, evaluator: str):
    truth = make_truth(2)
    results = perfect_results(truth) if found_some else []
    found = measure("bbox", evaluator, truth | {"annotations": []}, results)
    assert set(found.summary.values()) | set(found.per_class.values()) == {None}
    assert found.precision == {"0.50": [], "0.75": [], "0.50:0.95": []}


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_an_area_without_ground_truth_is_none(evaluator: str):
    truth = make_truth()
    results = noisy_results(truth)
    truth["annotations"] = [annotation for annotation in truth["annotations"] if annotation["area"] < 96**2]
    found = measure("segm", evaluator, truth, results)
    missing = [name for name, value in found.summary.items() if value is None]
    assert missing == ["ap_large", "ar_large"]
    assert json.loads(json.dumps(found.summary, allow_nan=False)) == found.summary


@pytest.mark.parametrize("evaluator", EVALUATORS)
@pytest.mark.parametrize("kind", KINDS)
def test_arguments_are_unchanged_and_nothing_is_printed(kind: str, evaluator: str, capfd: Any):
    truth = make_truth(2)
    results = noisy_results(truth, each=1)
    before = copy.deepcopy((truth, results))
    measure(kind, evaluator, truth, results)
    assert (truth, results) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_annotation_ids_do_not_matter_not_even_zero(evaluator: str):
    truth = make_truth(3)
    results = noisy_results(truth)
    expected = measure("bbox", evaluator, truth, results)
    for number, annotation in enumerate(reversed(truth["annotations"])):
        annotation["id"] = number
    assert measure("bbox", evaluator, truth, results) == expected


def test_annotations_are_not_crowds_by_default():
    truth = make_truth(2, crowds=False)
    for annotation in truth["annotations"]:
        del annotation["iscrowd"]
    results = [annotation | {"score": 1.0} for annotation in truth["annotations"]]
    assert measure("segm", "pycocotools", truth, results).summary["ap"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 7}, "result 1 has image_id 7, which is not among the 2 of the ground truth (1000, 1001)"),
        ({"category_id": 4}, "result 1 has category_id 4, which is not among the 4 of the ground truth (3, 5, 8, 9)"),
    ],
)
@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_unknown_images_and_categories_are_refused(evaluator: str, change: dict[str, int], message: str):
    truth = make_truth(2)
    results = perfect_results(truth)
    results[1] |= change
    with pytest.raises(UserError) as raised:
        measure("bbox", evaluator, truth, results)
    assert message in str(raised.value)


def test_comparing_masks_needs_masks():
    truth = make_truth(2)
    results = [{key: value for key, value in each.items() if key != "segmentation"} for each in perfect_results(truth)]
    with pytest.raises(UserError, match="result 0 has no 'segmentation'"):
        measure("segm", "pycocotools", truth, results)


def test_annotations_without_an_area_are_refused():
    truth = make_truth(2)
    del truth["annotations"][3]["area"]
    with pytest.raises(UserError, match="annotation 103 of the ground truth has no 'area'"):
        measure("bbox", "pycocotools", truth, [])


@pytest.mark.parametrize(
    ("module", "evaluator"), [("pycocotools.coco", EVALUATORS[0]), ("faster_coco_eval", EVALUATORS[1])]
)
def test_a_missing_evaluator_is_named(monkeypatch: pytest.MonkeyPatch, module: str, evaluator: str):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=re.escape(f"needs {evaluator}: {command_for_extra('detection')}")):
        measure("bbox", evaluator, make_truth(1), [])
