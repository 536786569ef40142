import io
import re
from pathlib import Path

import pytest

from halonet.training import train
from tests.engine.tiny import tiny_recipe


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_each_epoch_leaves_a_line(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    train(tiny_recipe(images, epochs=2), tmp_path / "run")
    lines = capsys.readouterr().out.splitlines()
    assert [line[:11] for line in lines] == ["epoch   1/2", "epoch   2/2"]
    assert re.search(r"training loss \d\.\d+ top-1 +\d+\.\d+ %  validation loss \d\.\d+ top-1", lines[0])
    assert re.search(r"\d+ images/s  \d\d:\d\d left$", lines[0])


def test_a_terminal_shows_a_progress_bar(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    train(tiny_recipe(images, epochs=1), tmp_path / "run")
    frames = terminal.getvalue().split("\r")
    bar = re.compile(r"epoch 1/1 \|.*\| +17 %, loss \d\.\d+ top-1 +\d+\.\d+ %, \d+ images/s, \d\d:\d\d left")
    assert any(bar.match(frame) for frame in frames)


def test_without_a_terminal_there_is_no_bar(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    train(tiny_recipe(images, epochs=1), tmp_path / "run")
    assert capsys.readouterr().err == ""
