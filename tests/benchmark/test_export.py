"""`halonet benchmark export`."""

import json

import pytest

from halonet.errors import ExportError
from halonet.export import Exported
from halonet_cli.main import main


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were exported; that of micro32 fails once."""
    names: list[str] = []

    def export(network, path, *, format):
        names.append(path.name)
        if names.count("micro32.onnx") == 1 and path.name == "micro32.onnx":
            raise ExportError("micro32.onnx was not written")
        return Exported(path, format, 2**20, 9.0, 8.0, ((1, 1, 3),), 1e-7)

    monkeypatch.setattr("halonet.benchmark.export.export_network", export)
    return names


def test_a_file_that_fails_is_told_and_the_others_are_exported(exports, tmp_path, capsys):
    path = tmp_path / "rows.json"
    words = ["benchmark", "export", "--models", "micro32", "mini32", "--formats", "onnx", "--output", str(path)]
    assert main(words) == 2
    printed = capsys.readouterr()
    assert "micro32.onnx was not written" in printed.out
    assert "these exports failed, see above: micro32 to onnx" in printed.err
    assert exports == ["micro32.onnx", "mini32.onnx"]
    assert main(words) == 0
    assert exports == ["micro32.onnx", "mini32.onnx", "micro32.onnx"]
    rows = [row for run in json.loads(path.read_text())["runs"] for row in run["rows"]]
    assert [(row["model"], row["mebibytes"], row["verified"]) for row in rows] == [
        ("mini32", 1.0, [[1, 1, 3]]),
        ("micro32", 1.0, [[1, 1, 3]]),
    ]
