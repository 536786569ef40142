import json

import pytest
import torch

from halonet.benchmark import record as record_module
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
def test_a_file_that_is_not_a_record_is_refused_and_kept(text, tmp_path):
    path = tmp_path / "notes.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"notes.json exists and is not a record of a benchmark; name another file"):
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
def test_a_record_of_another_question_is_refused(other, message, tmp_path):
    path = tmp_path / "record.json"
    write_record(other, {}, path)
    with pytest.raises(UserError, match=message):
        join_file(record(), path)


@pytest.mark.parametrize(
    ("found", "driver"),
    [
        ("printf '580.95.05\n580.95.05\n'", "580.95.05, CUDA 13.2"),
        ("exit 1", "unknown, CUDA 13.2"),
        (None, "unknown, CUDA 13.2"),
    ],
)
def test_the_driver_is_read_from_nvidia_smi(found, driver, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setenv("PATH", str(tmp_path))
    if found is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{found}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    assert record_module._describe_driver.__wrapped__() == driver


def test_a_machine_with_a_gpu_names_card_driver_and_backend(monkeypatch):
    backends = record_module.describe_backends()
    monkeypatch.setattr(record_module, "describe_backends", lambda: backends)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    monkeypatch.setattr(record_module, "_describe_driver", lambda: "a driver")
    machine = describe_machine()
    assert (machine["accelerator"], machine["driver"]) == ("a card", "a driver")
    assert "Triton" in machine["triton_backend"]
    assert all(isinstance(each, str) for each in machine.values())


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        join_file(record(), tmp_path / "nowhere" / "record.json")


def test_a_run_has_its_command_time_commit_and_versions():
    run = describe_run(["benchmark", "operator", "--plot", "a b.png"])
    assert run["command"] == "halonet benchmark operator --plot 'a b.png'"
    assert run["time"].endswith("+00:00")
    assert {"commit", "python", "torch", "timm", "halonet"} <= set(run)
    assert {"processor", "instructions", "cpu_backend"} <= set(describe_machine())
