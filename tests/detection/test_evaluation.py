import json

import pytest
import torch

from halonet.data import DetectionAugmentation, load_detection_source
from halonet.detection import evaluate
from halonet.detection.average_precision import average_precision
from halonet.detection.evaluation import detect, match_categories
from halonet.errors import UserError
from tests.detection.tiny import make_scenes, tiny_augmentation


class Oracle(torch.nn.Module):
    """Detects what is there: the targets of a source, one image after the other."""

    def __init__(self, source, classes=lambda label: label):
        super().__init__()
        self.targets = iter([source[index][1] for index in range(len(source))])
        self.classes = classes

    def forward(self, images):
        target = next(self.targets)
        labels = torch.tensor([self.classes(label) for label in target["labels"].tolist()])
        return [
            {
                "boxes": target["boxes"],
                "labels": labels,
                "scores": torch.linspace(0.9, 0.8, len(labels)),
                "masks": target["masks"][:, None].float(),
            }
        ]


def test_a_perfect_detector_scores_one_hundred(scenes):
    source = load_detection_source(str(scenes), "validation")
    results = list(detect(Oracle(source), source, tiny_augmentation(), source.category_ids, torch.device("cpu")))
    assert len(results) == 6
    for kind in ("bbox", "segm"):
        assert average_precision(source.ground_truth, results, kind).summary["ap"] == pytest.approx(1.0)


def test_detections_of_a_class_that_the_data_does_not_have_are_left_out(scenes):
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
    with pytest.raises(UserError, match="class 'ball' is none of the checkpoint's 2 classes \\(box, disc\\)"):
        evaluate(finished_run, str(folder), "validation")


def test_an_unknown_split_is_refused(finished_run):
    with pytest.raises(UserError, match="unknown split"):
        evaluate(finished_run, split="final")


def test_the_default_augmentation_is_torchvisions():
    assert (DetectionAugmentation().min_size, DetectionAugmentation().max_size) == (800, 1333)
