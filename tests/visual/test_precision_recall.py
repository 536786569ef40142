from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from halonet.visual.curves import RATE, TRAINING, VALIDATION
from halonet.visual.precision_recall import draw_precision_recall

CURVES = {
    "0.50": np.linspace(1, 0.4, 101).tolist(),
    "0.75": np.linspace(0.9, 0, 101).tolist(),
    "0.50:0.95": np.linspace(0.8, 0.1, 101).tolist(),
}


def pixels_of(path: Path, color: str) -> list[int]:
    """The columns of the pixels of a color."""
    wanted = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
    return (np.array(Image.open(path).convert("RGB")) == wanted).all(-1).nonzero()[1].tolist()


def test_boxes_and_masks_have_a_panel_with_three_curves(tmp_path: Path):
    draw_precision_recall({"boxes": CURVES, "masks": CURVES}, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as drawn:
        middle = drawn.width / 2
    for color in (TRAINING, RATE, VALIDATION):
        columns = np.array(pixels_of(tmp_path / "curves.png", color))
        assert (columns < middle).sum() > 1000
        assert (columns > middle).sum() > 1000


def test_one_panel_is_enough(tmp_path: Path):
    draw_precision_recall({"boxes": CURVES}, tmp_path / "curves.svg")
    assert "<svg" in (tmp_path / "curves.svg").read_text()


def test_empty_curve_is_left_out(tmp_path: Path):
    draw_precision_recall({"boxes": CURVES | {"0.75": []}}, tmp_path / "curves.png")
    assert len(pixels_of(tmp_path / "curves.png", TRAINING)) > 1000
    assert not pixels_of(tmp_path / "curves.png", RATE)


def test_panels_without_any_curve_are_drawn_empty(tmp_path: Path):
    draw_precision_recall({"masks": {name: [] for name in CURVES}}, tmp_path / "curves.png")
    assert not pixels_of(tmp_path / "curves.png", VALIDATION)


def test_legend_has_average_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    labels = []
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig",
        lambda figure, *_, **__: labels.extend(figure.axes[0].get_legend_handles_labels()[1]),
    )
    draw_precision_recall({"boxes": CURVES}, tmp_path / "curves.png")
    assert labels == ["IoU 0.50\nAP 70.0 %", "IoU 0.75\nAP 45.0 %", "IoU 0.50 to 0.95\nAP 45.0 %"]


def test_unknown_threshold_or_no_panel_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="curves of 'boxes' are of IoU 0.6; known: 0.50, 0.75, 0.50:0.95"):
        draw_precision_recall({"boxes": {"0.6": [1.0, 0.0]}}, tmp_path / "curves.png")
    with pytest.raises(ValueError, match="no panel"):
        draw_precision_recall({}, tmp_path / "curves.png")
