import pytest

from tests.docs.pages import DOCS, run_steps, steps_of
from tools import make_model_table
from tools.pages import between

PAGE = (DOCS / "models.md").read_text(encoding="utf-8")
TABLES = between(PAGE, make_model_table.BEGIN, make_model_table.END)


def without_macs(tables):
    lines = tables.strip("\n").splitlines()
    return [line.rsplit("|", 2)[0] if line.startswith("| `") else line for line in lines]


def test_the_tables_are_up_to_date_but_for_their_multiply_adds():
    assert without_macs(TABLES) == without_macs(make_model_table.make_tables(macs=False))


@pytest.mark.parametrize("name", ["h0", "resnet50_twin", "tiny28"])
def test_multiply_adds_are_up_to_date(name):
    make_row = make_model_table.study_row if name not in make_model_table.FAMILY else None
    size = make_model_table.HALONETS[name].image_size
    row = make_row(name, macs=True) if make_row else make_model_table.family_row(name, size, macs=True)
    assert "| " + " | ".join(row) + " |" in TABLES.splitlines()


def test_every_model_has_a_row():
    for name in make_model_table.HALONETS:
        assert f"| `{name}` |" in TABLES


def test_every_knob_is_explained():
    for field in make_model_table.HaloNetConfig.__dataclass_fields__:
        assert f"`{field}`" in PAGE.split("## What the fields mean")[1], field


@pytest.mark.filterwarnings("ignore:.*quantiz")  # what is deprecated says so
def test_the_examples_print_what_the_page_says():
    steps = steps_of(PAGE)
    assert run_steps(steps) == [step.expected for step in steps]
