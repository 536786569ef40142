import pytest

from halonet.benchmark import average_precision
from halonet.benchmark.average_precision import make_data, measure
from halonet.benchmark.settings import Settings

SETTINGS = Settings(repeats=2, threads=1)


def test_both_evaluators_are_timed_and_agree():
    rows = list(measure(3, 10, SETTINGS, both=True))
    assert [row.task for row in rows] == ["bbox", "segm"]
    for row in rows:
        assert list(row.milliseconds) == ["faster-coco-eval", "pycocotools"]
        assert row.facts["detections"] == 30
        assert 0 < row.facts["ap"] < 100
        assert row.facts["largest_difference"] == pytest.approx(0, abs=1e-9)


def test_a_difference_between_the_evaluators_is_recorded(monkeypatch):
    real = average_precision.average_precision

    def wrong(*data, evaluator):
        found = real(*data, evaluator=evaluator)
        if evaluator == "pycocotools":
            found.summary["ap50"] += 0.5
        return found

    monkeypatch.setattr(average_precision, "average_precision", wrong)
    row = next(measure(3, 10, SETTINGS, both=True))
    assert row.facts["largest_difference"] == pytest.approx(0.5)


def test_ground_truth_and_detections_are_the_same_each_time():
    assert make_data(2, 10) == make_data(2, 10)
