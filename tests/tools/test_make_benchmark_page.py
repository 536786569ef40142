import json

import pytest

from tools import make_benchmark_page
from tools.benchmark_answers import make_answers, make_speed
from tools.benchmark_details import SECTIONS
from tools.make_benchmark_page import BEGIN, END, PAGE, README, RESULTS, make_page
from tools.pages import between

GPU_PARTS = {
    file: {section.part for section in SECTIONS if section.file == file}
    for file in {section.file for section in SECTIONS if section.part}
}


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == make_page()


def test_the_readme_is_up_to_date():
    assert between(README.read_text(encoding="utf-8"), BEGIN, END) == make_speed(RESULTS)


def test_every_record_has_a_section():
    known = {section.file for section in SECTIONS}
    found = {
        f"{kind}/{path.name}" for kind in ("operator", "model", "memory") for path in (RESULTS / kind).glob("*.json")
    }
    assert found - {"model/every_row.json"} == {file for file in known if not file.startswith("gpu/")}


@pytest.fixture
def results(tmp_path):
    """A folder with one record of three runs, of 2, 4 and 3 times ours."""

    def run(milliseconds, time):
        row = {
            "case": "h1/stage1",
            "task": "forward",
            "baseline": "cpu",
            "facts": {},
            "milliseconds": {"cpu": [1.0, 1.0, 1.0], "timm": [0.0, milliseconds, 9.0]},
            "bounds": {"cpu": 0.5},
            "mebibytes": {"cpu": 2.0, "timm": 10.0},
            "absent": {"natten": "it is not installed"},
        }
        provenance = {"command": "halonet x", "time": time, "commit": "abc", "torch": "2.15", "timm": "1.0"}
        return {"provenance": provenance, "repeats": 3, "rows": [row]}

    runs = [run(2.0, "2026-01-01"), run(4.0, "2026-01-03"), run(3.0, "2026-01-02")]
    record = {"benchmark": "operator", "settings": {"batch": 4}, "machine": {"processor": "abacus"}, "runs": runs}
    (tmp_path / "operator").mkdir()
    (tmp_path / "operator/stages.json").write_text(json.dumps(record))
    return tmp_path


def test_figures_are_medians_over_runs_with_their_spread(results):
    page = make_page(results)
    assert "| h1/stage1 | forward | timm | 3.00 (2.00 to 4.00) | 3.00 x (2.00 to 4.00) | - | 10.0 | 5.00 x |" in page
    assert "| h1/stage1 | forward | cpu | 1.00 | 1.00 x | 50 % | 2.00 | 1.00 x |" in page
    assert "- `natten`: it is not installed (h1/stage1 forward)" in page
    assert (
        "3 runs, 2026-01-01 to 2026-01-03: abacus; batch 4; medians of 3; torch 2.15, timm 1.0; commit `abc`"
        in " ".join(page.split())
    )


def test_a_gpus_records_share_a_file_and_name_no_cpu_backend(results):
    record = json.loads((results / "operator/stages.json").read_text())
    record["machine"] |= {"accelerator": "loom", "cpu_backend": "not here"}
    file = next(section.file for section in SECTIONS if section.part == "operator")
    (results / file).parent.mkdir(parents=True)
    (results / file).write_text(json.dumps({"records": dict.fromkeys(GPU_PARTS[file], record)}))
    section = make_page(results).partition("## On an H100: the operator and its peers")[2].partition("## ")[0]
    assert "| h1/stage1 | forward | timm | 3.00 (2.00 to 4.00) |" in section
    assert "2026-01-03: abacus, loom; batch 4" in " ".join(section.split())


def test_every_record_with_rows_of_a_gpus_file_is_on_the_page():
    for file, parts in GPU_PARTS.items():
        records = json.loads((RESULTS / file).read_text(encoding="utf-8"))["records"]
        assert {name for name, record in records.items() if any(run["rows"] for run in record["runs"])} == parts


def test_records_that_do_not_exist_are_left_out(tmp_path):
    page = make_benchmark_page
    assert make_page(tmp_path) == "\n".join((page.INTRODUCTION, page.METHOD, page.DETAILS, page.OWED))
    assert "docs/benchmarks.md" in make_speed(tmp_path)


def test_the_readme_shows_the_figures(results):
    assert "| time of the operator at H1's stage 1, forward | 3.00 x | - | - | - |" in make_speed(results)


def test_answers_show_medians(results):
    answers = make_answers(results)
    assert "| size | pass | CPU: timm |" in answers
    assert "| stage 1 | forward | 3.00 x |" in answers
    assert "| stage 1 | 50 % | - |" in answers
    assert "grow" not in answers  # there is no record of it


def test_a_network_is_compared_in_its_faster_memory_format(tmp_path):
    row = {"case": "networks, batch 4", "task": "inference", "baseline": "h1", "facts": {}}
    times = {"h1": 2.0, "timm/halonet_h1": 8.0, "timm/halonet_h1 channels_last": 6.0, "timm/resnet50": 1.0}
    row["milliseconds"] = {name: [time, time, time] for name, time in times.items()}
    (tmp_path / "model").mkdir()
    (tmp_path / "model/networks.json").write_text(json.dumps({"runs": [{"rows": [row]}]}))
    answers = make_answers(tmp_path)
    assert "| `timm/halonet_h1` | 3.00 x |" in answers
    assert "| `timm/resnet50` | 0.50 x |" in answers
    assert "| time of timm's `halonet_h1` over H1's, inference | 3.00 x | - | - | - |" in make_speed(tmp_path)


def test_memory_is_compared_with_ours(tmp_path):
    row = {"case": "256 px, batch 16", "task": "training", "baseline": "h1", "facts": {}}
    row["mebibytes"] = {"h1": 100.0, "timm/halonet_h1": 250.0}
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/step.json").write_text(json.dumps({"runs": [{"rows": [row]}]}))
    assert "| CPU | batch 16 | `timm/halonet_h1` | 250 | 2.50 x |" in make_answers(tmp_path)
    assert "| memory of that step | 2.50 x | - | - | - |" in make_speed(tmp_path)


def test_growth_is_relative_to_the_smallest_image(tmp_path):
    def row(side, milliseconds):
        return {
            "case": f"image of {side} px",
            "task": "forward",
            "baseline": "cpu",
            "facts": {"unit": "pixel", "units": 1000},
            "milliseconds": {"cpu": [milliseconds] * 3},
        }

    (tmp_path / "operator").mkdir()
    record = {"runs": [{"rows": [row(128, 4.0), row(256, 5.0)]}]}
    (tmp_path / "operator/growth_image.json").write_text(json.dumps(record))
    assert "| CPU | forward | 1.00 | 1.25 | - | - | - |" in make_answers(tmp_path)
