"""The check of the lower bounds' environment tells a bound from a later version."""

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
def test_a_version_is_the_bound_or_not(installed: str, bound: str, expected: bool) -> None:
    assert lowest_versions.is_same(installed, bound) is expected


def test_versions_above_the_bounds_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lowest = {"torch": "2.11.0+cpu", "timm": "1.0.19", "jaxtyping": "0.3.2"}
    monkeypatch.setattr(lowest_versions, "version", lowest.__getitem__)
    lowest_versions.main()
    assert capsys.readouterr().out == "torch 2.11.0+cpu, timm 1.0.19, jaxtyping 0.3.2\n"
    lowest["torch"] = "2.15.0"
    with pytest.raises(SystemExit, match="torch 2.15.0 is not 2.11"):
        lowest_versions.main()
