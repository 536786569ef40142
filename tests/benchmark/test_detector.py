import pytest

from halonet.benchmark import detector
from halonet.benchmark.settings import Settings
from halonet.detection import create_detector
from tests.detection.tiny import BACKBONE, SMALL, tiny_augmentation

SETTINGS = Settings(batch=2, repeats=2, threads=1)


def create(name, num_classes):
    return create_detector("tiny28", num_classes, tiny_augmentation(), backbone_overrides=dict(BACKBONE), **SMALL)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(detector, "create_detector", create)
    monkeypatch.setattr(
        "torchvision.models.detection.maskrcnn_resnet50_fpn", lambda **options: create("peer", options["num_classes"])
    )


def test_detectors_and_then_their_backbones_are_timed_over_the_first():
    whole, backbone = detector.measure(["r50se", "r50se_halo_b8"], SETTINGS, 48, 64)
    assert (whole.case, backbone.case) == ("detector, 48 x 64 px", "backbone, 48 x 64 px")
    for row in (whole, backbone):
        assert list(row.milliseconds) == ["r50se", "r50se_halo_b8", detector.PEER]
        assert row.baseline == "r50se"
        assert row.facts == {"height": 48, "width": 64, "batch": 2}


def test_the_backbones_row_leaves_the_heads_out(monkeypatch):
    calls = []
    found = create("observed", 80)
    monkeypatch.setattr(detector, "create_detector", lambda name, num_classes: found)
    found.roi_heads.register_forward_hook(lambda *_: calls.append("heads"))
    found.backbone.register_forward_hook(lambda *_: calls.append("backbone"))
    rows = detector.measure(["r50se"], SETTINGS, 48, 64)
    next(rows)
    assert calls == ["backbone", "heads"] * 4
    calls.clear()
    next(rows)
    assert calls == ["backbone"] * 4
