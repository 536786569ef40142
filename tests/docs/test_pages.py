import pytest

from tests.docs.pages import DOCS

GENERATED = {"benchmarks.md", "results.md"}
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", [page for page in PAGES if page not in GENERATED])
def test_a_page_can_be_read_in_one_sitting(page):
    assert len((DOCS / page).read_text(encoding="utf-8").split()) <= 2500


def test_generated_pages_exist():
    assert set(PAGES) >= GENERATED
