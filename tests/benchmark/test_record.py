import json

import pytest

from halonet.benchmark.record import describe_machine, describe_run, join_file, make_record, write_record
from halonet.benchmark.settings import Settings
from halonet.errors import UserError
from tests.benchmark.tiny import SETTINGS

QUESTION = {"compare": None}


def record(benchmark="operator", question=QUESTION, settings=SETTINGS):
    return make_record(benchmark, question, settings)


def test_appending_keeps_earlier_runs(tmp_path):
    path = tmp_path / "record.json"
    for rows in ([1], [2], [3]):
        write_record(record(), {"rows": rows}, path)
    found = json.loads(path.read_text())
    assert [run["rows"] for run in found["runs"]] == [[1], [2], [3]]
    assert found["benchmark"] == "operator"
    assert "repeats" not in found["settings"], "runs may differ in how often they measure"
    assert [each.name for each in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"runs": 3}', "\x00"])
def test_a_file_that_is_no_record_is_refused_and_kept(text, tmp_path):
    path = tmp_path / "notes.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"notes.json exists and is no record of a benchmark; name another file"):
        write_record(record(), {}, path)
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (record("model"), "is a record of benchmark model"),
        (record(question={"compare": "centered"}), "is a record of question"),
        (record(settings=Settings(batch=3, threads=1)), "is a record of settings"),
        (record() | {"machine": {"processor": "abacus"}}, "is a record of machine"),
    ],
)
def test_a_record_of_something_else_is_refused(other, message, tmp_path):
    path = tmp_path / "record.json"
    write_record(other, {}, path)
    with pytest.raises(UserError, match=message):
        join_file(record(), path)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        join_file(record(), tmp_path / "nowhere" / "record.json")


def test_a_run_says_when_where_and_how_it_was_made():
    run = describe_run(["benchmark", "operator", "--plot", "a b.png"])
    assert run["command"] == "halonet benchmark operator --plot 'a b.png'"
    assert run["time"].endswith("+00:00")
    assert {"commit", "python", "torch", "timm", "halonet"} <= set(run)
    assert {"processor", "torch instructions", "halonet cpu backend"} <= set(describe_machine())
