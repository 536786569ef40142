from pathlib import Path

import pytest

from halonet.errors import UserError
from tests.wrong_inputs.case import Case, failure
from tests.wrong_inputs.kinds import KINDS, make_cases


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("untyped")
def test_message_names_field_and_rule(kind: str, tmp_path: Path):
    failures = []
    for number, case in enumerate(make_cases(kind, seed=14, count=40)):
        folder = tmp_path / str(number)
        folder.mkdir()
        if (found := failure(case, folder)) is not None:
            failures.append(f"{case.text}: {found}")
    assert failures == []


def test_kinds_have_valid_and_wrong_inputs():
    for kind in KINDS:
        wrong = [bool(case.expected) for case in make_cases(kind, seed=1, count=60)]
        assert any(wrong), kind
        assert kind == "use" or not all(wrong), kind


def test_failure_detects_wrong_outcomes(tmp_path: Path):
    def refuse(_: Path) -> None:
        raise UserError("depth is 0, but must be at least 1")

    def fail(_: Path) -> None:
        raise TypeError("ours")

    assert failure(Case("", refuse, ("depth", "at least 1")), tmp_path) is None
    assert failure(Case("", lambda _: None), tmp_path) is None
    assert failure(Case("", refuse, ("width",)), tmp_path).startswith("the message lacks ['width']")
    assert failure(Case("", refuse), tmp_path).startswith("a valid input was refused: depth")
    assert failure(Case("", lambda _: None, ("depth",)), tmp_path) == "it was accepted"
    assert failure(Case("", fail, ("depth",)), tmp_path) == "TypeError: ours"
