import json

import pytest
import torch

from halonet.benchmark import suite
from halonet.benchmark.record import Row
from halonet.benchmark.sizes import SIZES
from halonet.benchmark.suite import BYTES_OF_WINDOWS, FULL, SMOKE, largest_batch, make_sections
from halonet_cli.main import main, make_parser
from tests.halonet_cli.mistakes import assert_a_users_mistake


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("halonet.benchmark.peak.ATTEMPTS", 1)
    monkeypatch.setattr("halonet.benchmark.model.peak_mebibytes", lambda *_, name, **__: float(len(name)))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two that wait for one another take seconds for tiny networks on a busy machine
    yield
    torch.set_num_threads(threads)


def smoke(path, *words):
    arguments = ["--smoke", "--device", "cpu", "--dtype", "float32", "--output", str(path), *words]
    assert main(["benchmark", "all", *arguments]) == 0
    return json.loads(path.read_text())["records"]


def outcome(record):
    return record["runs"][-1]["outcome"]


def test_all_sections_run_on_a_cpu_at_tiny_sizes(tmp_path):
    records = smoke(tmp_path / "gpu.json")
    assert list(records) == [section.name for section in make_sections(SMOKE, "cpu", "float32")]
    for record in records.values():
        assert "processor" in record["machine"]
        (run,) = record["runs"]
        assert run["outcome"] == "complete"
        assert run["peak"]["flops_per_second"] > 0
        assert {"commit", "torch", "timm"} <= set(run["provenance"])
        assert run["provenance"]["command"].startswith("halonet benchmark all --smoke")
        assert run["rows"]
        assert all(row["absent"] == {} for row in run["rows"])


def test_the_plan_for_a_gpu_has_all_sections_in_order_of_importance():
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


def test_the_sizes_of_h1_fit_in_whole_batches_and_all_others_in_parts():
    assert {largest_batch(SIZES[name], 256) for name in (*FULL.stages, *FULL.strided)} == {256}
    batches = {name: largest_batch(SIZES[name], 256) for name in FULL.family}
    assert min(batches.values()) >= 8
    assert batches["h7/stage1"] < 256
    assert largest_batch(SIZES["h7/stage1"], 4) == 4


def test_windows_that_are_twice_as_large_halve_the_batch(monkeypatch):
    whole = largest_batch(SIZES["h7/stage1"], 256)
    monkeypatch.setattr(suite, "BYTES_OF_WINDOWS", BYTES_OF_WINDOWS // 2)
    assert largest_batch(SIZES["h7/stage1"], 256) == whole // 2


ROW = Row("case", "forward", "cpu", {}, {"cpu": [1.0, 1.0, 1.0]})


@pytest.fixture
def plant(monkeypatch):
    """Replaces what a section measures."""
    planted = {}
    make = suite.make_sections

    def make_planted(*words):
        every = make(*words)
        return [suite.dataclasses.replace(each, rows=planted.get(each.name, lambda _: iter([ROW]))) for each in every]

    monkeypatch.setattr(suite, "make_sections", make_planted)
    return planted.__setitem__


def test_a_section_that_fails_keeps_its_rows_and_stops_no_other(plant, tmp_path):
    def rows(peak):
        yield ROW
        raise RuntimeError("out of luck")

    plant("networks", rows)
    records = smoke(tmp_path / "gpu.json")
    assert outcome(records["networks"]) == "failed: RuntimeError: out of luck"
    assert [row["case"] for row in records["networks"]["runs"][0]["rows"]] == ["case"]
    assert {outcome(record) for name, record in records.items() if name != "networks"} == {"complete"}


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("halonet.benchmark.suite.time.monotonic", lambda: now[0])
    return now


def test_sections_after_the_last_minute_are_skipped(plant, clock, tmp_path):
    def rows(peak):
        for _ in range(5):
            clock[0] += 25.0
            yield ROW

    plant("networks", rows)
    records = smoke(tmp_path / "gpu.json", "--minutes", "1")
    assert outcome(records["operator"]) == "complete"
    assert outcome(records["networks"]) == "cut after 3 rows: the minutes were used up"
    assert len(records["networks"]["runs"][0]["rows"]) == 3
    assert outcome(records["memory"]) == "skipped: the minutes were used up"
    assert records["memory"]["runs"][0]["rows"] == []


def test_an_interrupted_run_keeps_what_it_measured(plant, tmp_path):
    path = tmp_path / "gpu.json"

    def rows(peak):
        yield ROW
        raise KeyboardInterrupt

    plant("networks", rows)
    assert main(["benchmark", "all", "--smoke", "--device", "cpu", "--dtype", "float32", "--output", str(path)]) == 130
    records = json.loads(path.read_text())["records"]
    assert outcome(records["operator"]) == "complete"
    assert outcome(records["networks"]) == "interrupted"
    assert len(records["networks"]["runs"][0]["rows"]) == 1


def test_a_second_run_adds_to_its_sections_alone(plant, tmp_path):
    path = tmp_path / "gpu.json"
    smoke(path, "--sections", "memory", "operator")
    records = smoke(path, "--sections", "operator", "networks")
    assert {name: len(record["runs"]) for name, record in records.items()} == {
        "operator": 2, "memory": 1, "networks": 1,
    }  # fmt: skip


def test_another_process_measures_the_rest_after_the_device_is_lost(plant, clock, monkeypatch, tmp_path):
    def rows(peak):
        clock[0] += 90.0
        yield ROW

    plant("networks", rows)
    answers = iter([False, True])
    monkeypatch.setattr(suite, "is_lost", lambda device: next(answers))
    called = []
    monkeypatch.setattr("os.execv", lambda program, words: called.append(words))
    smoke(tmp_path / "gpu.json", "--minutes", "4", "--sections", "operator", "networks", "memory")
    assert called[0][1:3] == ["-m", "halonet_cli"]
    options = make_parser().parse_args(called[0][3:])
    assert options.sections == ["memory"]
    assert options.minutes == 2.5
    assert options.smoke
    assert options.output == tmp_path / "gpu.json"


def test_a_device_that_answers_is_not_lost():
    assert not suite.is_lost("cpu")
    assert suite.is_lost("meta"), "an item of a tensor without memory is a RuntimeError, as that of a lost device is"


CPU = ["--smoke", "--device", "cpu"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "cpu"], "--device cpu is a CPU here, but the sizes are for a GPU; add --smoke"),
        ([*CPU, "--sections", "operators"], "unknown section 'operators'. Did you mean 'operator'"),
        ([*CPU, "--minutes", "-1"], "--minutes is -1.0; it must be a finite number of at least 0"),
        ([*CPU, "--minutes", "nan"], "--minutes is nan; it must be a finite number of at least 0"),
        ([*CPU, "--dtype", "int8"], "dtype is 'int8', but must be float64, float32, bfloat16 or float16"),
    ],
)
def test_a_users_mistake_is_one_line_and_status_2(words, message, capsys, tmp_path, monkeypatch):
    assert_a_users_mistake(["benchmark", "all", *words], message, capsys, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document["records"]["operator"]["machine"].update(processor="abacus"), "record of machine"),
        (lambda document: document.clear(), "is not a record of a benchmark"),
        (lambda document: document.update(records=3), "is not a record of a benchmark"),
        (lambda document: document["records"].update(operator=3), "is not a record of a benchmark"),
    ],
)
def test_another_kind_of_file_is_refused_and_kept(change, message, plant, capsys, tmp_path):
    path = tmp_path / "gpu.json"
    smoke(path, "--sections", "operator")
    document = json.loads(path.read_text())
    change(document)
    path.write_text(text := json.dumps(document))
    capsys.readouterr()
    assert main(["benchmark", "all", *CPU, "--dtype", "float32", "--output", str(path)]) == 2
    assert message in capsys.readouterr().err
    assert path.read_text() == text
