import errno
import json
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from halonet.benchmark.claims import execution
from halonet.benchmark.claims.execution import check_variant, describe_data, execute
from halonet.benchmark.claims.experiment import experiment_hash
from halonet.benchmark.claims.plan import Plan
from halonet.benchmark.claims.records import read_record, write_record
from halonet.errors import DivergedError, UserError
from halonet.interrupts import Interrupted
from halonet.training import Classifier
from tests.benchmark.claims.small_plan import write_plan
from tests.data import cifar10_archives

CODE = {"commit": "abc1234", "modified": False}


@pytest.fixture(scope="module")
def small() -> Any:
    with pytest.MonkeyPatch.context() as monkeypatch:
        cifar10_archives.expect_small_archives(monkeypatch)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, small: None) -> Path:
    return cifar10_archives.write_batches(tmp_path_factory.mktemp("data"), cifar10_archives.BINARY)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return write_plan(tmp_path_factory.mktemp("plan"))


@pytest.fixture(scope="module")
def record(plan: Plan, data: Path) -> dict[str, Any]:
    return execute(plan.rows["halonet"], 1, data, CODE)


def test_a_run_gives_a_record_that_can_be_written_and_read(record, tmp_path):
    path = write_record(tmp_path, record)
    assert path.name == "halonet-seed1.json"
    assert read_record(path) == json.loads(json.dumps(record))


def test_a_record_says_what_was_trained(record, plan):
    assert (record["row"], record["seed"], record["status"]) == ("halonet", 1, "complete")
    assert record["recipe_hash"] == experiment_hash(plan.rows["halonet"].recipe)
    assert record["recipe"]["engine"]["seed"] == 1
    assert record["data"]["variant"] == "CIFAR-10"
    assert record["data"]["images"] == {"train": 90, "validation": 10, "test": 20}
    assert record["machine"]["threads"] == str(torch.get_num_threads())
    assert record["provenance"]["commit"] == "abc1234"
    assert record["provenance"]["command"] == "halonet benchmark claims --data DIR --row halonet"


def test_a_record_holds_curves_and_predictions_that_agree_with_its_accuracy(record):
    assert [epoch["epoch"] for epoch in record["epochs"]] == [0, 1]
    labels = cifar10_archives.make_split("test")[1]
    right = sum(int(guess) == label for guess, label in zip(record["predictions"], labels, strict=True))
    assert record["test"]["top1"] == 100 * right / 20
    assert record["shifts"]["images"] == 4
    assert record["seconds"]["process"] > 0


def test_a_record_holds_no_path(record, data):
    assert record["recipe"]["data"]["root"] is None
    assert str(data) not in json.dumps(record)
    assert str(Path.home()) not in json.dumps(record)


def test_the_same_seed_gives_the_same_record(record, plan, data):
    again = execute(plan.rows["halonet"], 1, data, CODE)
    for key in ("epochs", "test", "predictions", "shifts"):
        assert again[key] == record[key]
    other = execute(plan.rows["halonet"], 2, data, CODE)
    assert other["epochs"] != record["epochs"]


def test_a_training_that_diverges_is_a_record_too(plan, data, monkeypatch, tmp_path):
    def diverge(recipe: object, run: Path, advice: str) -> Path:
        raise DivergedError("loss became nan by step 3: the training diverged")

    monkeypatch.setattr(execution, "train", diverge)
    record = execute(plan.rows["resnet"], 0, data, CODE)
    assert (record["status"], record["reason"]) == ("diverged", "loss became nan by step 3: the training diverged")
    assert record["test"] is record["predictions"] is record["shifts"] is None
    assert read_record(write_record(tmp_path, record)) == json.loads(json.dumps(record))


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder in which temporary folders are made."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def test_a_signal_ends_a_run_and_leaves_no_folder_to_resume(plan, data, monkeypatch, temporary):
    step = Classifier.training_step

    def interrupt(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments)

    monkeypatch.setattr(Classifier, "training_step", interrupt)
    message = "^SIGTERM: the run of halonet with seed 0 was stopped and left no record: run the command again$"
    with pytest.raises(Interrupted, match=message) as caught:
        execute(plan.rows["halonet"], 0, data, CODE)
    assert caught.value.status == 143
    assert list(temporary.iterdir()) == []


def test_a_full_disk_names_no_folder_to_resume(plan, data, monkeypatch, temporary):
    def full(checkpoint, file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="^no space left to write .*ckpt: make room, then run the command again$"):
        execute(plan.rows["halonet"], 0, data, CODE)
    assert list(temporary.iterdir()) == []


def test_another_mistake_is_no_record(plan, tmp_path):
    with pytest.raises(UserError, match="does not hold the train images of CIFAR-10"):
        execute(plan.rows["halonet"], 0, tmp_path, CODE)


def test_the_data_are_described(plan, data):
    described = describe_data(plan.rows["halonet"].recipe, data)
    assert described["checksums"]["train"] != described["checksums"]["test"]
    check_variant(described["variant"], "CIFAR-10", data)
    with pytest.raises(UserError, match="holds CIFAR-10, but the plan and its records are of CIFAR-10 .JPEG."):
        check_variant(described["variant"], "CIFAR-10 (JPEG)", data)
