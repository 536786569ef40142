"""The check of an environment that has the lowest allowed versions."""

import pytest

from tests import lowest_versions


@pytest.mark.parametrize(
    ("installed", "bound", "expected"),
    [
        ("2.11.0+cu130", "2.11", True),
        ("1.0.19", "1.0.19", True),
        ("2.11.1", "2.11", False),
        ("2.12.0", "2.11", False),
        ("1.0.31", "1.0.19", False),
    ],
)
def test_version_equals_its_bound(installed: str, bound: str, expected: bool) -> None:
    assert lowest_versions.is_same(installed, bound) is expected


def test_versions_above_their_bounds_fail(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lowest = {"torch": "2.11.0+cpu", "timm": "1.0.31", "jaxtyping": "0.3.2", "shtab": "1.10.0"}
    monkeypatch.setattr(lowest_versions, "version", lowest.__getitem__)
    lowest_versions.main()
    assert capsys.readouterr().out == "torch 2.11.0+cpu, timm 1.0.31, jaxtyping 0.3.2, shtab 1.10.0\n"
    lowest["torch"] = "2.15.0"
    with pytest.raises(SystemExit, match="torch 2.15.0 is not 2.11"):
        lowest_versions.main()
