import dataclasses

import pytest

from halonet.benchmark.claims.plan import read_plan
from halonet.benchmark.claims.records import read_records, write_record
from tests.benchmark.claims.synthetic import make_diverged, make_plan, make_record
from tests.docs.pages import DOCS
from tools.make_results_page import PAGE, RECORDS, make_page


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == make_page(), "run python tools/make_results_page.py"


def test_the_page_is_in_the_navigation():
    assert "- Results: results.md\n" in (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")


def test_every_record_belongs_to_the_plan():
    read_records(RECORDS, read_plan())


@pytest.fixture
def plan(tmp_path):
    return make_plan(tmp_path)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "claims"


@pytest.fixture
def page(plan, folder):
    """All five runs of the first row, fewer of the others, one diverged, and none of the fourth."""
    for seed, top1 in enumerate((60.0, 60.2, 59.8, 60.1, 59.9)):
        write_record(folder, make_record(plan, "first", seed, top1))
    shifts = make_record(plan)["shifts"] | {"changed": [9.0] * 8}
    for seed, top1 in enumerate((58.0, 58.3, 57.7)):
        record = make_record(plan, "second", seed, top1, parameters=300_000, shifts=shifts)
        write_record(folder, record | {"seconds": {"process": 1200.0, "wall": 1300.0}})
    write_record(folder, make_diverged(plan, "second", 4))
    for seed, top1 in enumerate((61.0, 61.1, 61.2)):
        write_record(folder, make_record(plan, "third", seed, top1))
    write_record(folder, make_record(plan, "fourth", 1, 60.0))
    return make_page(plan, folder)


def line_of(page, start):
    (line,) = [line for line in page.splitlines() if line.startswith(start)]
    return [cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")]


def test_bases_show_what_they_have_and_reach(page):
    first = ["`first`", "0.250", "12.0", "5", "60.00 ± 0.16", "70.00", "61.00", "10.0"]
    assert line_of(page, "| `first` | 0.250") == first
    assert line_of(page, "| `second` | 0.300")[3:5] == ["3 of 5", "58.00 ± 0.30"]


def test_a_comparison_shows_both_rows_and_what_differs(page):
    cells = line_of(page, "| `first` against `second` | `depths` 1, 1, 1 instead of 1, 1, 2")
    assert cells[2:10] == [
        "higher",
        "+1.0",
        "seen, 3 of 5 seeds of the base",
        "0.250 against 0.300",
        "5 / 3 of 5",
        "60.00 ± 0.16",
        "58.00 ± 0.30",
        "70.00",
    ]
    # Welch: variances of the means 0.025 / 5 and 0.09 / 3; 2.685 degrees of freedom, quantile 3.4045.
    assert cells[10] == "+2.00 (+1.36 to +2.64)"


def test_an_expectation_that_fails_is_opposite(page):
    cells = line_of(page, "| `third` against `first`")
    assert cells[1] == "`learning_rate` 0.1 instead of 0.2"
    assert cells[3:7] == ["-2.0 / of 9", "opposite", "0.250", "3 / 5"]


def test_a_row_with_one_run_has_no_verdict(page):
    cells = line_of(page, "| `fourth` against `first`")
    assert cells[4:8] == ["not run", "0.250", "1 of 3 / 5", "60.00"]
    assert cells[10] == "-"
    assert line_of(page, "| gap |")[4:] == ["not run", "5 / 3 of 5 / 3 / 1 of 3", "-"]


def test_shifts_are_compared_by_the_mean_share_of_changed_predictions(page):
    cells = line_of(page, "| `second` against `first`")
    assert cells[4:9] == ["opposite, 3 of 5 seeds", "0.300 against 0.250", "3 of 5 / 5", "9.00 ± 0.00", "4.50 ± 0.00"]
    changed = ["0.0", "1.0", "2.0", "3.0", "4.0", "5.0", "6.0", "7.0", "8.0"]
    assert line_of(page, "| `first` | predictions changed, % |")[2:] == changed
    assert line_of(page, "| `first` | accuracy, % |")[2:5] == ["61.0", "60.0", "59.0"]
    assert "5 test images, right, filled with black" in page


def test_verdicts_are_counted_and_corrected(page):
    text = " ".join(page.partition("## How many claims")[2].split())
    assert "3 of 5 comparisons and contrasts have a verdict: 1 seen, 2 opposite, 0 undecided." in text
    assert "0.2 of 3" in text
    held = [
        "- `third` against `first`, test accuracy: opposite",
        "- `first` against `second`, test accuracy: seen",
        "- `second` against `first`, predictions changed by shifts of 1 to 8 pixels: opposite",
    ]
    assert f"for all of them: {' '.join(held)} ## Shifted images" in text


def test_the_page_says_that_nothing_survives_the_correction(plan, folder):
    for row in plan.rows:
        for seed in range(3):
            write_record(folder, make_record(plan, row, seed, 60.0 + seed))
    text = " ".join(make_page(plan, folder).split())
    assert "0 seen, 0 opposite, 5 undecided" in text
    assert "remain after Holm's correction for all of them: none." in text


def test_a_contrast_of_four_rows_is_judged(plan, folder):
    for row, top1 in (("first", 62.0), ("second", 60.0), ("third", 61.0), ("fourth", 60.5)):
        for seed in range(3):
            write_record(folder, make_record(plan, row, seed, top1 + seed / 10))
    cells = line_of(make_page(plan, folder), "| gap |")
    assert cells[1] == "(`first` - `second`) - (`third` - `fourth`)"
    assert cells[4] == "seen, 12 of 16 seeds"
    assert cells[6].startswith("+1.50 (")


def test_diverged_runs_are_listed_and_not_missing(page):
    assert "- `second`, seed 4: the loss is not finite at step 7\n" in page
    assert "3 of 16 runs are missing, about 0.7 hours of one processor core.\n" in page
    assert line_of(page, "| `second` | 3 |")[2] == "0.3"  # 20 minutes


def test_runs_of_unknown_time_are_counted(plan, folder):
    rows = {name: dataclasses.replace(row, minutes=None) for name, row in plan.rows.items()}
    page = make_page(dataclasses.replace(plan, rows=rows), folder)
    assert "16 of 16 runs are missing; the time of 16 is not known yet.\n" in page


def test_the_page_says_where_its_figures_come_from(page):
    assert "- Machines: abacus\n" in page
    assert "- Versions: python 3.11.7, halonet 0.1.0, torch 2.15.0, timm 1.0.31\n" in page
    assert "- Commits: `abc1234`\n" in page
    assert "of CIFAR-10 (JPEG), which was compressed" in " ".join(page.split())
    assert "- Whales are not here.\n" in page


def test_a_plan_without_runs_has_a_page(plan, folder):
    page = make_page(plan, folder)
    assert "There are no runs yet.\n" in page
    assert page.count("| not run |") == 5
    assert "There are none.\n" in page
    assert "Shifted images" not in page
    assert "0 of 5 comparisons and contrasts have a verdict.\n" in page
    assert "16 of 16 runs are missing, about 9.5 hours of one processor core.\n" in page
