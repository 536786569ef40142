import json

import pytest
import torch

from halonet.benchmark.record import Row
from halonet.benchmark.sizes import SIZES
from tools import measure_gpu
from tools.make_benchmark_page import absent, origin, table
from tools.measure_gpu import BYTES_OF_WINDOWS, FULL, SMOKE, batch_of, main, make_sections


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("halonet.benchmark.peak.ATTEMPTS", 1)
    monkeypatch.setattr("halonet.benchmark.model.peak_mebibytes", lambda *_, name, **__: float(len(name)))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two that wait for one another take seconds for tiny networks on a busy machine
    yield
    torch.set_num_threads(threads)


def smoke(path, *words):
    assert main(["--smoke", "--device", "cpu", "--dtype", "float32", "--output", str(path), *words]) == 0
    return json.loads(path.read_text())


def test_all_sections_run_on_a_cpu_at_tiny_sizes_and_their_records_make_tables(tmp_path):
    document = smoke(tmp_path / "gpu.json")
    assert {"processor", "commit", "torch", "timm"} <= set(document["environment"])
    assert document["peak"]["flops_per_second"] > 0
    sections = document["sections"]
    assert list(sections) == [section.name for section in make_sections(SMOKE, "cpu", "float32")]
    assert {section["outcome"] for section in sections.values()} == {"complete"}
    for section in sections.values():
        (run,) = section["record"]["runs"]
        assert run["rows"]
        assert all(row["absent"] == {} for row in run["rows"])
        page = table(section["record"]) + absent(section["record"]) + origin(section["record"])
        assert run["rows"][0]["baseline"] in page
    command = sections["operator"]["record"]["runs"][0]["provenance"]["command"]
    assert command.startswith("python tools/measure_gpu.py --smoke")


def test_the_plan_for_a_gpu_holds_what_is_owed_and_begins_with_what_matters_most():
    sections = {section.name: section for section in make_sections(FULL, "meta", "bfloat16")}
    assert list(sections) == [
        "operator", "networks", "memory", "operator_beside_compiled", "networks_compiled", "operator_strided_sizes",
        "accelerate", "networks_of_21k", "strided_or_pooled", "relaxed_or_centered", "growth_with_the_image",
        "operator_of_h0_to_h7",
    ]  # fmt: skip
    assert {section.settings.dtype for section in sections.values()} == {"bfloat16"}
    assert sections["operator"].settings.batch == 256
    assert sections["memory"].settings.batch == 64
    named = {*FULL.stages, *FULL.strided, *FULL.family}
    assert named == {name for name in SIZES if name.startswith("h")}


def test_every_size_fits_and_those_of_h1_are_whole_batches():
    assert {batch_of(SIZES[name], 256) for name in (*FULL.stages, *FULL.strided)} == {256}
    batches = {name: batch_of(SIZES[name], 256) for name in FULL.family}
    assert min(batches.values()) >= 8
    assert batches["h7/stage1"] < 256
    assert batch_of(SIZES["h7/stage1"], 4) == 4


def test_windows_that_are_twice_as_large_halve_the_batch(monkeypatch):
    whole = batch_of(SIZES["h7/stage1"], 256)
    monkeypatch.setattr(measure_gpu, "BYTES_OF_WINDOWS", BYTES_OF_WINDOWS // 2)
    assert batch_of(SIZES["h7/stage1"], 256) == whole // 2


ROW = Row("case", "forward", "cpu", {}, {"cpu": [1.0, 1.0, 1.0]})


@pytest.fixture
def plant(monkeypatch):
    """Replaces what a section measures."""
    planted = {}
    make = measure_gpu.make_sections

    def make_planted(*words):
        every = make(*words)
        return [
            measure_gpu.dataclasses.replace(each, rows=planted.get(each.name, lambda _: iter([ROW]))) for each in every
        ]

    monkeypatch.setattr(measure_gpu, "make_sections", make_planted)
    return planted.__setitem__


def test_a_section_that_fails_says_why_keeps_its_rows_and_stops_no_other(plant, tmp_path):
    def rows(peak):
        yield ROW
        raise RuntimeError("out of luck")

    plant("networks", rows)
    sections = smoke(tmp_path / "gpu.json")["sections"]
    assert sections["networks"]["outcome"] == "failed: RuntimeError: out of luck"
    assert [row["case"] for row in sections["networks"]["record"]["runs"][0]["rows"]] == ["case"]
    assert {section["outcome"] for name, section in sections.items() if name != "networks"} == {"complete"}


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(measure_gpu.time, "monotonic", lambda: now[0])
    return now


def test_when_the_minutes_are_used_up_the_rest_is_skipped_and_says_so(plant, clock, tmp_path):
    def rows(peak):
        for _ in range(5):
            clock[0] += 25.0
            yield ROW

    plant("networks", rows)
    sections = smoke(tmp_path / "gpu.json", "--minutes", "1")["sections"]
    assert sections["operator"]["outcome"] == "complete"
    assert sections["networks"]["outcome"] == "cut after 3 rows: the minutes were used up"
    assert len(sections["networks"]["record"]["runs"][0]["rows"]) == 3
    assert sections["memory"]["outcome"] == "skipped: the minutes were used up"
    assert sections["memory"]["record"]["runs"] == []


def test_a_run_that_is_killed_has_lost_nothing_that_it_measured(plant, tmp_path):
    path = tmp_path / "gpu.json"

    def rows(peak):
        yield ROW
        raise KeyboardInterrupt

    plant("networks", rows)
    with pytest.raises(KeyboardInterrupt):
        smoke(path)
    sections = json.loads(path.read_text())["sections"]
    assert sections["operator"]["outcome"] == "complete"
    assert sections["networks"]["outcome"] == "interrupted"
    assert len(sections["networks"]["record"]["runs"][0]["rows"]) == 1


def test_running_again_adds_runs_and_leaves_other_sections_alone(plant, tmp_path):
    path = tmp_path / "gpu.json"
    smoke(path, "--sections", "memory", "operator")
    sections = smoke(path, "--sections", "operator", "networks")["sections"]
    assert {name: len(each["record"]["runs"]) for name, each in sections.items()} == {
        "operator": 2, "memory": 1, "networks": 1,
    }  # fmt: skip


def test_a_lost_device_leaves_the_remaining_sections_to_another_process(plant, clock, monkeypatch, tmp_path):
    def rows(peak):
        clock[0] += 90.0
        yield ROW

    plant("networks", rows)
    answers = iter([False, True])
    monkeypatch.setattr(measure_gpu, "is_lost", lambda device: next(answers))
    called = []
    monkeypatch.setattr(measure_gpu.os, "execv", lambda program, words: called.append(words))
    smoke(tmp_path / "gpu.json", "--minutes", "4", "--sections", "operator", "networks", "memory")
    options = measure_gpu.make_parser().parse_args(called[0][2:])
    assert options.sections == ["memory"]
    assert options.minutes == 2.5
    assert options.smoke
    assert options.output == tmp_path / "gpu.json"


def test_an_accelerator_that_answers_is_not_lost(monkeypatch):
    assert not measure_gpu.is_lost("cpu")
    assert measure_gpu.is_lost("meta"), "an item of nothing is a RuntimeError, as that of a lost device is"


def refuse(capsys, path, *words):
    status = main(["--output", str(path), *words])
    return status, capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "cpu"], "--device cpu is a CPU here, and the sizes are a GPU's; add --smoke"),
        (
            ["--smoke", "--device", "cpu", "--sections", "operators"],
            "unknown section 'operators'. Did you mean 'operator'",
        ),
        (["--smoke", "--device", "cpu", "--minutes", "-1"], "--minutes is -1.0, but must be at least 0"),
        (
            ["--smoke", "--device", "cpu", "--dtype", "int8"],
            "dtype is 'int8', but must be float64, float32, bfloat16 or float16",
        ),
    ],
)
def test_a_users_mistake_is_one_line_and_status_2(words, message, capsys, tmp_path):
    status, shown = refuse(capsys, tmp_path / "gpu.json", *words)
    assert status == 2
    assert shown.startswith("measure_gpu: ")
    assert message in shown
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_machine_or_of_something_else_is_refused_and_kept(plant, capsys, tmp_path):
    path = tmp_path / "gpu.json"
    document = smoke(path, "--sections", "operator")
    capsys.readouterr()
    document["sections"]["operator"]["record"]["machine"] = {"processor": "abacus"}
    for text, message in ((json.dumps(document), "is a record of machine"), ("[]", "is no record of a benchmark")):
        path.write_text(text)
        status, shown = refuse(capsys, path, "--smoke", "--device", "cpu", "--dtype", "float32")
        assert status == 2
        assert message in shown
        assert path.read_text() == text
