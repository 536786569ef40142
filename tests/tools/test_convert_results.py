import copy
import json

import pytest

from halonet.benchmark.record import Row, join
from tools.convert_results import convert
from tools.pages import ROOT

ROW = {"case": "h1/stage1", "task": "forward", "baseline": "triton", "facts": {}}
MACHINE = {"processor": "abacus", "torch instructions": "none", "halonet cpu backend": "-"}
RECORD = {"benchmark": "operator", "question": {}, "settings": {}, "machine": MACHINE}
SUITE = {
    "environment": MACHINE | {"command": "python tools/measure_gpu.py", "commit": "abc"},
    "peak": {"flops_per_second": 1.0},
    "sections": {
        "operator": {
            "outcome": "complete",
            "seconds": 2.0,
            "record": RECORD | {"runs": [{"provenance": {"commit": "abc"}, "repeats": 3, "rows": [ROW]}]},
        },
        "memory": {"outcome": "skipped", "seconds": 0.0, "record": RECORD | {"runs": []}},
    },
}


def test_sections_of_the_earlier_suite_become_records():
    records = convert(copy.deepcopy(SUITE))["records"]
    machine = {"processor": "abacus", "instructions": "none", "cpu_backend": "-"}
    assert [record["machine"] for record in records.values()] == [machine] * 2
    (run,) = records["operator"]["runs"]
    assert run == {
        "provenance": {"commit": "abc"}, "repeats": 3, "outcome": "complete", "seconds": 2.0, "rows": [ROW],
    }  # fmt: skip
    (run,) = records["memory"]["runs"]
    assert (run["outcome"], run["rows"]) == ("skipped", [])
    assert run["provenance"] == {"command": "python tools/measure_gpu.py", "commit": "abc"}


def test_a_result_of_a_run_becomes_a_record():
    result = {"top1": 87.0, "seed": 2, "recipe": "fashion_mnist", "model": "tiny28", "device": "cpu"}
    record = convert(result | {"hardware": "abacus", "versions": {"torch": "2.15"}})
    assert record["question"] == {"recipe": "fashion_mnist", "model": "tiny28"}
    assert record["settings"] == {"device": "cpu"}
    assert record["runs"] == [{"provenance": {"torch": "2.15"}, "rows": [{"top1": 87.0, "seed": 2}]}]


@pytest.mark.parametrize("document", [SUITE, RECORD | {"runs": []}])
def test_what_is_converted_stays_as_it_is(document):
    converted = convert(copy.deepcopy(document))
    assert convert(copy.deepcopy(converted)) == converted


KINDS = ["detector", "memory", "model", "operator", "training", "triton"]
FILES = [path for kind in KINDS for path in sorted((ROOT / "results" / kind).iterdir())]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_committed_result_is_a_record(path):
    document = json.loads(path.read_text(encoding="utf-8"))
    records = document["records"].values() if "records" in document else [document]
    for record in records:
        join(record, record, path)
        assert record["runs"]
        assert " " not in "".join(record["machine"])
        for run in record["runs"]:
            assert run["provenance"]
            if record["benchmark"] in ("operator", "model", "memory", "detector", "average_precision"):
                assert [Row(**row) for row in run["rows"]]


def test_no_result_lies_outside_a_kind():
    assert not [path.name for path in (ROOT / "results").iterdir() if path.is_file()]
