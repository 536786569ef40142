import json

import pytest
import torch
from torch.nn import functional as F

from halonet.data import DetectionAugmentation, load_detection_source
from halonet.detection import FasterRCNN, evaluate
from halonet.detection.average_precision import average_precision
from halonet.detection.evaluation import detect, match_categories
from halonet.engine.weights import read_weights, save_weights
from halonet.errors import UserError, UserNote
from tests.detection.tiny import make_scenes, tiny_augmentation, without_masks


class Oracle(FasterRCNN):
    """Detects the targets of a source, one image after another."""

    def __init__(self, source, classes=lambda label: label):
        torch.nn.Module.__init__(self)
        self.targets = iter([source[index][1] for index in range(len(source))])
        self.classes = classes

    def detect(self, images):
        target = next(self.targets)
        labels = torch.tensor([self.classes(label) for label in target["labels"].tolist()])
        found = {"boxes": target["boxes"], "labels": labels, "scores": torch.linspace(0.9, 0.8, len(labels))}
        if "masks" in target:
            boxes = target["boxes"].int().tolist()
            cut = [mask[y0:y1, x0:x1] for mask, (x0, y0, x1, y1) in zip(target["masks"], boxes, strict=True)]
            side = (28, 28)
            found["masks"] = torch.stack([F.interpolate(each[None, None].float(), side)[0] for each in cut])
        return [found]


def test_a_perfect_detector_scores_one_hundred(scenes):
    source = load_detection_source(str(scenes), "validation")
    results = list(detect(Oracle(source), source, tiny_augmentation(), source.category_ids, torch.device("cpu")))
    assert len(results) == 6
    assert average_precision(source.ground_truth, results, "bbox").summary["ap"] == pytest.approx(1.0)
    # Masks of 28 x 28 pixels, stretched over boxes of 12 to 18, do not reproduce every edge.
    assert average_precision(source.ground_truth, results, "segm").summary["ap"] > 0.9


EYES = [
    {"id": 3, "name": "eye", "supercategory": "left"},
    {"id": 7, "name": "eye", "supercategory": "right"},
]


def name_both_eye(folder):
    for file in (folder / "annotations").iterdir():
        file.write_text(json.dumps(json.loads(file.read_text()) | {"categories": EYES}))
    return folder


def test_categories_with_equal_names_are_kept_apart(tmp_path):
    source = load_detection_source(str(name_both_eye(make_scenes(tmp_path / "coco"))), "validation")
    category_ids = match_categories(source, ["eye", "eye"])
    results = list(detect(Oracle(source), source, tiny_augmentation(), category_ids, torch.device("cpu")))
    precision = average_precision(source.ground_truth, results, "bbox")
    assert precision.summary["ap"] == pytest.approx(1.0)
    assert precision.per_class == {"eye (left)": pytest.approx(1.0), "eye (right)": pytest.approx(1.0)}


def test_equal_names_are_paired_in_order(tmp_path, scenes):
    source = load_detection_source(str(name_both_eye(make_scenes(tmp_path / "coco"))), "validation")
    assert match_categories(source, ["eye", "eye"]) == [3, 7]
    assert match_categories(source, ["eye", "nose", "eye", "eye"]) == [3, None, 7, None]
    with pytest.raises(UserError, match="the data has 2 classes named 'eye', but the checkpoint has 1"):
        match_categories(source, ["eye", "nose"])


def test_classes_with_equal_names_have_a_row_each(finished_run, tmp_path):
    folder = name_both_eye(make_scenes(tmp_path / "coco"))
    renamed = tmp_path / "model.safetensors"
    state, information, _ = read_weights(finished_run)
    save_weights(renamed, state, information | {"class_names": ["eye", "eye"]})
    measured = evaluate(renamed, str(folder))
    assert list(measured["per_class"]) == ["eye (left)", "eye (right)"]
    before = evaluate(finished_run, str(make_scenes(tmp_path / "other")))
    assert list(measured["per_class"].values()) == list(before["per_class"].values())


def test_a_box_detector_is_measured_by_boxes(box_run, box_scenes, tmp_path):
    measured = evaluate(box_run, plot_file=tmp_path / "curves.png", results_file=tmp_path / "found.json")
    assert measured["data"] == str(box_scenes)
    assert not [name for name in measured if name.startswith("mask")]
    assert [list(values) for values in measured["per_class"].values()] == [["box_ap"]] * 2
    results = json.loads((tmp_path / "found.json").read_text())
    assert results
    assert not any("segmentation" in result for result in results)
    truth = load_detection_source(str(box_scenes), "validation").ground_truth
    assert measured["box_ap"] == pytest.approx(100 * average_precision(truth, results, "bbox").summary["ap"])
    assert (tmp_path / "curves.png").stat().st_size > 0


def test_a_box_detector_takes_data_with_masks(box_run, scenes, box_scenes):
    on_masks, on_boxes = evaluate(box_run, str(scenes)), evaluate(box_run, str(box_scenes))
    assert "mask_ap" not in on_masks
    assert on_masks["box_ap"] == on_boxes["box_ap"]


def test_masks_are_not_measured_without_ground_truth(finished_run, box_scenes, tmp_path):
    with pytest.warns(UserNote, match="has no masks: only boxes are measured"):
        measured = evaluate(finished_run, str(box_scenes), plot_file=tmp_path / "curves.png")
    assert "mask_ap" not in measured
    assert measured["box_ap"] is not None


def test_a_run_is_measured_on_its_held_out_images(box_run, tmp_path):
    folder = without_masks(make_scenes(tmp_path / "coco", {"train": 10}))
    state, information, _ = read_weights(box_run)
    path = tmp_path / "model.safetensors"
    save_weights(path, state, information | {"data": str(folder), "hold_out": 0.3})
    assert evaluate(path)["images"] == 3
    assert evaluate(path, split="train")["images"] == 7


def test_null_in_a_checkpoint_counts_as_missing(box_run, tmp_path):
    state, information, _ = read_weights(box_run)
    path = tmp_path / "model.safetensors"
    for field in ("data", "test_split"):
        save_weights(path, state, information | {field: None})
        with pytest.raises(UserError, match="does not say what data it was trained on: name some with --data"):
            evaluate(path)


def test_detections_of_unknown_classes_are_left_out(scenes):
    source = load_detection_source(str(scenes), "validation")
    detector = Oracle(source, classes=lambda label: 2 if label == 1 else 1)
    results = list(detect(detector, source, tiny_augmentation(), [7, None], torch.device("cpu")))
    assert {result["category_id"] for result in results} == {7}
    assert len(results) == 3


def test_a_run_is_measured_on_its_own_data(finished_run, scenes, tmp_path):
    measured = evaluate(finished_run, results_file=tmp_path / "found.json", plot_file=tmp_path / "curves.png")
    assert measured["data"] == str(scenes)
    assert measured["split"] == "validation"
    assert measured["images"] == 3
    assert (tmp_path / "curves.png").stat().st_size > 0
    results = json.loads((tmp_path / "found.json").read_text())
    truth = load_detection_source(str(scenes), "validation").ground_truth
    for name, kind in (("box", "bbox"), ("mask", "segm")):
        by_hand = average_precision(truth, results, kind)
        assert measured[f"{name}_ap"] == pytest.approx(100 * by_hand.summary["ap"])
        assert measured["per_class"]["disc"][f"{name}_ap"] == pytest.approx(100 * by_hand.per_class["disc"])


def test_both_evaluators_measure_the_same(finished_run):
    record, fast = evaluate(finished_run), evaluate(finished_run, evaluator="faster-coco-eval")
    for name in record:
        if name.startswith(("box_", "mask_")):
            assert fast[name] == (None if record[name] is None else pytest.approx(record[name]))


def test_the_checkpoints_classes_are_found_by_name(scenes):
    source = load_detection_source(str(scenes), "validation")
    assert match_categories(source, ["disc", "cat", "box"]) == [7, None, 3]


def test_data_of_other_classes_is_refused(finished_run, tmp_path):
    folder = make_scenes(tmp_path / "coco")
    file = folder / "annotations" / "instances_val.json"
    text = file.read_text().replace('"disc"', '"ball"')
    file.write_text(text)
    (folder / "annotations" / "instances_train.json").unlink()
    with pytest.raises(UserError, match="class 'ball' is not one of the checkpoint's 2 classes \\(box, disc\\)"):
        evaluate(finished_run, str(folder), "validation")


def test_an_unknown_split_is_refused(finished_run):
    with pytest.raises(UserError, match="unknown split"):
        evaluate(finished_run, split="final")


def test_the_default_augmentation_is_torchvisions():
    assert (DetectionAugmentation().min_size, DetectionAugmentation().max_size) == (800, 1333)
