import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from halonet.visual.curves import TRAINING, VALIDATION, draw_curves


def write_log(path: Path, epochs: int, validated: bool = True) -> Path:
    lines = []
    for epoch in range(epochs):
        for step in (4 * epoch + 2, 4 * epoch + 4):
            lines.append(
                {"kind": "train", "epoch": epoch, "step": step, "learning_rate": 0.1, "loss": 1.0, "top1": 50.0}
            )
        line = {"kind": "epoch", "epoch": epoch, "step": 4 * epoch + 4, "train_loss": 2.0 - epoch, "train_top1": 40.0}
        if validated:
            line |= {"validation_loss": 1.5, "validation_top1": 60.0 + epoch}
        lines.append(line)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def pixels_of(path: Path, color: str) -> int:
    wanted = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
    return int((np.array(Image.open(path).convert("RGB")) == wanted).all(-1).sum())


@pytest.mark.parametrize(("epochs", "pixels"), [(1, 100), (3, 1000)])
def test_training_and_validation_are_drawn(tmp_path: Path, epochs: int, pixels: int):
    draw_curves(write_log(tmp_path / "log.jsonl", epochs), tmp_path / "curves.png")
    assert pixels_of(tmp_path / "curves.png", TRAINING) > pixels
    assert pixels_of(tmp_path / "curves.png", VALIDATION) > pixels


def test_run_without_validation_has_no_validation_curve(tmp_path: Path):
    draw_curves(write_log(tmp_path / "log.jsonl", 3, validated=False), tmp_path / "curves.png")
    assert pixels_of(tmp_path / "curves.png", TRAINING) > 100
    assert pixels_of(tmp_path / "curves.png", VALIDATION) == 0


def test_log_without_an_epoch_is_refused(tmp_path: Path):
    (tmp_path / "log.jsonl").write_text("")
    with pytest.raises(ValueError, match="no finished epoch"):
        draw_curves(tmp_path / "log.jsonl", tmp_path / "curves.png")
