import matplotlib
import pytest

from tests.docs.pages import DOCS, run_steps, steps_of

STEPS = steps_of((DOCS / "operator.md").read_text(encoding="utf-8"))


def test_the_worked_example_prints_what_the_page_says():
    assert run_steps(STEPS) == [step.expected for step in STEPS]


def test_every_result_of_the_worked_example_is_read_as_one():
    assert sum(bool(step.expected) for step in STEPS) == 6


@pytest.fixture
def picture_tool():
    backend = matplotlib.get_backend()
    from tools import draw_operator

    yield draw_operator
    matplotlib.use(backend)


def test_the_picture_is_drawn_with_the_same_bytes_twice_and_without_a_date(picture_tool, tmp_path):
    for name in ("first.svg", "second.svg"):
        picture_tool.main(tmp_path / name)
    first = (tmp_path / "first.svg").read_bytes()
    assert first == (tmp_path / "second.svg").read_bytes()
    assert b"dc:date" not in first


def test_the_page_shows_the_picture():
    assert "images/operator.svg" in (DOCS / "operator.md").read_text(encoding="utf-8")
    assert (DOCS / "images" / "operator.svg").is_file()
