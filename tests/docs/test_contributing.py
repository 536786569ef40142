import itertools
import re

import pytest

from tests.docs.pages import DOCS
from tests.test_import_rules import ORDER

ROOT = DOCS.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TOP = ("csrc", "docs", "results", "src", "tests", "tools")


def section(title: str) -> str:
    return TEXT.split(f"## {title}\n")[1].split("\n## ")[0]


ROWS = [line.strip("|").split("|") for line in section("To change X, open Y").splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize(("change", "places"), ROWS, ids=[change.strip() for change, _ in ROWS])
def test_what_to_open_exists(change, places):
    paths = re.findall(r"`([^`]+)`", places)
    assert paths
    for path in paths:
        folder = ROOT if path.split("/")[0] in TOP else ROOT / "src/halonet"
        assert (folder / path).exists(), f"to change {change.strip()}: {path} does not exist"


def test_every_package_has_a_row():
    packages = {file.parent.name for file in (ROOT / "src/halonet").glob("*/__init__.py")} | {"recipes"}
    assert {name for name in packages if not any(f"`{name}/" in places for _, places in ROWS)} == set()


def test_the_import_order_is_the_tested_one():
    text = section("Import order")
    order = " ".join(text.split("```text\n")[1].split("\n```")[0].split())
    steps = [step.split(", ") for step in order.split(" → ")]
    above = [{ORDER[name] for name in step} for step in steps]
    for lower, higher in itertools.pairwise(above):
        assert max(lower) < min(higher)
    below = set(re.findall(r"`(\w+)`", text.split("```")[2].split(".")[0]))
    assert below | {name for step in steps for name in step} == set(ORDER)
    assert max(ORDER[name] for name in below) < min(above[0])
