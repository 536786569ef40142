import json

import pytest

from tests.docs.pages import DOCS
from tools.draw_benchmarks import CHARTS, QUESTIONS, RESULTS, checksum, make_charts


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_chart_shows_the_figures_of_the_records(name):
    read, _ = QUESTIONS[name]
    description = f"<dc:description>{checksum(read(RESULTS))}</dc:description>"
    assert description in (CHARTS / f"{name}.svg").read_text(encoding="utf-8"), "run tools/make_benchmark_page.py"


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_page_shows_every_chart(name):
    assert f"(images/benchmarks/{name}.svg)" in (DOCS / "benchmarks.md").read_text(encoding="utf-8")


def test_the_home_shows_how_much_faster_it_is():
    assert "(images/benchmarks/faster.svg)" in (DOCS / "index.md").read_text(encoding="utf-8")


@pytest.fixture
def results(tmp_path):
    rows = []
    for stage in (1, 2):
        for task in ("forward", "training"):
            times = {"cpu": [1.0] * 3, "timm": [2.0 * stage] * 3}
            row = {"case": f"h1/stage{stage}", "task": task, "baseline": "cpu", "facts": {}, "milliseconds": times}
            rows.append(row | {"bounds": {"cpu": 0.5}, "mebibytes": {"cpu": 2.0, "timm": 10.0}})
    (tmp_path / "operator").mkdir()
    (tmp_path / "operator/stages.json").write_text(json.dumps({"runs": [{"rows": rows}]}))
    return tmp_path


def test_charts_are_drawn_of_the_records_that_are_there(results):
    charts = make_charts(results)
    assert {path.stem for path in charts} == {"faster", "bound", "memory"}
    assert make_charts(results) == charts


def test_a_chart_reads_ratios_bounds_and_memory(results):
    figures = {name: read(results) for name, (read, _) in QUESTIONS.items()}
    stages = {"stage 1": 2.0, "stage 2": 4.0}
    assert figures["faster"] == {"CPU": {"forward": {"timm": stages}, "training": {"timm": stages}}}
    assert figures["bound"]["CPU"]["forward"] == {"stage 1": 50.0, "stage 2": 50.0}
    (operator,) = figures["memory"].values()
    assert operator["timm"] == {"stage 1": 10.0, "stage 2": 10.0}
    assert figures["growth"] == {}
