"""The tool that puts trained weights into the package."""

import json
from pathlib import Path

import pytest
import torch

from halonet.classification.checkpoint import load_checkpoint
from halonet.engine.weights import read_weights
from halonet.errors import UserError
from halonet.training import evaluate, train
from tests.data import cifar10_archives
from tests.engine.tiny import tiny_cifar10_recipe
from tools import make_weights


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cifar10_archives.expect_small_archives(monkeypatch)
    return cifar10_archives.write_batches(tmp_path / "data", cifar10_archives.BINARY)


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Path:
    return train(tiny_cifar10_recipe(data), tmp_path / "run")


def test_packaged_weights_are_half_precision_and_say_what_they_reach(run, data, tmp_path):
    path = make_weights.make_weights(run, "tiny.cifar10", data, tmp_path / "weights")
    state, information, _ = read_weights(path)
    assert path.name == "tiny.cifar10.safetensors"
    assert {tensor.dtype for tensor in state.values() if tensor.is_floating_point()} == {torch.float16}
    measured = evaluate(path, root=data, device="cpu")
    assert information["figures"]["top1"] == measured["top1"]
    assert information["figures"]["loss"] == measured["loss"]
    assert (information["figures"]["data"], information["figures"]["images"]) == ("CIFAR-10", 20)
    assert information["run"]["seed"] == 0


def test_packaged_weights_load_into_single_precision(run, data, tmp_path):
    network, information = load_checkpoint(make_weights.make_weights(run, "tiny.cifar10", data, tmp_path / "weights"))
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert information["class_names"][3] == "cat"


def test_packaged_weights_hold_no_path(run, data, tmp_path):
    path = make_weights.make_weights(run, "tiny.cifar10", data, tmp_path / "weights")
    assert str(tmp_path) not in json.dumps(read_weights(path)[1])


def test_weights_of_somebodys_folder_are_refused(finished_run, tmp_path):
    with pytest.raises(UserError, match="package weights of named data sets only"):
        make_weights.make_weights(finished_run, "tiny.folder", None, tmp_path / "weights")


def test_weights_that_are_too_large_or_cannot_be_measured_leave_the_package_as_it_was(run, data, tmp_path, monkeypatch):
    path = make_weights.make_weights(run, "tiny.cifar10", data, tmp_path / "weights")
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    assert set(before) == {"tiny.cifar10.safetensors", "tiny.cifar10.familiarity.json"}
    with pytest.raises(UserError, match="give it with --data.root DIR"):
        make_weights.make_weights(run, "tiny.cifar10", None, tmp_path / "weights")
    monkeypatch.setattr(make_weights, "MOST_BYTES", 1000)
    with pytest.raises(UserError, match="the package takes at most 1,000"):
        make_weights.make_weights(run, "tiny.cifar10", data, tmp_path / "weights")
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
