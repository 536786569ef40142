import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS

GENERATED = {"benchmarks.md", "results.md"}
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", [page for page in PAGES if page not in GENERATED])
def test_a_page_can_be_read_in_one_sitting(page):
    assert len((DOCS / page).read_text(encoding="utf-8").split()) <= 2500


def test_every_page_with_python_is_run_by_a_test():
    others = [path for path in Path(__file__).parent.glob("test_*.py") if path.name != Path(__file__).name]
    tests = "".join(path.read_text(encoding="utf-8") for path in others)
    pages = [page for page in PAGES if "```python" in (DOCS / page).read_text(encoding="utf-8")]
    assert [page for page in pages if f'"{page}"' not in tests] == []


def test_generated_pages_exist():
    assert set(PAGES) >= GENERATED


@pytest.mark.parametrize("page", ["index.md", "operator.md"])
def test_the_equation_fits_the_column_of_a_window_of_1280_pixels(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    equation = text.split("```text\n", 1)[1].split("```")[0]
    assert "softmax" in equation
    assert max(map(len, equation.splitlines())) <= 76


def test_the_home_shows_the_operator_and_what_was_trained():
    home = (DOCS / "index.md").read_text(encoding="utf-8")
    pictures = re.findall(r"\]\((images/[^)]+)\)", home)
    assert {"images/operator.svg", "images/nuclei.png"} <= set(pictures)
    assert [name for name in pictures if not (DOCS / name).is_file()] == []
