import json

import pytest

from halonet.benchmark.record import Row, join
from tools import add_training_result
from tools.pages import ROOT

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


@pytest.fixture
def run(tmp_path):
    result = {"top1": 87.0, "seed": 2, "recipe": "fashion_mnist", "model": "tiny28", "device": "cpu"}
    result |= {"hardware": "abacus", "versions": {"torch": "2.15"}}
    (tmp_path / "run").mkdir()
    (tmp_path / "run/result.json").write_text(json.dumps(result))
    return tmp_path / "run"


def test_results_of_one_recipe_and_machine_share_a_record(run, monkeypatch, tmp_path):
    path = tmp_path / "record.json"
    monkeypatch.setattr("sys.argv", ["add_training_result.py", str(run), "--output", str(path)])
    assert add_training_result.main() == add_training_result.main() == 0
    record = json.loads(path.read_text())
    assert record["question"] == {"recipe": "fashion_mnist", "model": "tiny28"}
    assert record["settings"] == {"device": "cpu"}
    assert record["machine"] == {"hardware": "abacus"}
    assert record["runs"] == [{"provenance": {"torch": "2.15"}, "rows": [{"top1": 87.0, "seed": 2}]}] * 2


def test_a_result_of_another_machine_is_refused(run, monkeypatch, tmp_path, capsys):
    path = tmp_path / "record.json"
    monkeypatch.setattr("sys.argv", ["add_training_result.py", str(run), "--output", str(path)])
    assert add_training_result.main() == 0
    before = path.read_text()
    (run / "result.json").write_text((run / "result.json").read_text().replace("abacus", "loom"))
    assert add_training_result.main() == 2
    assert "is a record of machine" in capsys.readouterr().err
    assert path.read_text() == before
