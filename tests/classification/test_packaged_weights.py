"""The weights in the package: small files in half precision with a description and results."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import halonet
from halonet.training import load_checkpoint

FOLDER = Path(halonet.__file__).parent / "models/weights"
RESULTS = Path(__file__).parents[2] / "results" / "training" / "cifar10_minutes.json"
FILES = sorted(FOLDER.glob("*.safetensors"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def test_the_packaged_networks_are_listed() -> None:
    assert [path.stem for path in FILES] == ["mini32.cifar10"]


@each_file
def test_a_file_is_small_and_in_half_precision(path: Path) -> None:
    assert path.stat().st_size <= 2_000_000
    with safe_open(str(path), framework="pt") as file:
        kinds = {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118 - not a dictionary
    assert kinds == {torch.float16, torch.int64}  # batch norms count their batches


@each_file
def test_a_file_holds_the_row_that_it_is_named_by(path: Path) -> None:
    network, information = load_checkpoint(path)
    row, _, data = path.stem.partition(".")
    assert network.config == halonet.HALONETS[row]
    assert information["data"] == data
    assert len(information["class_names"]) == information["num_classes"]
    with torch.no_grad():
        logits = network(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, information["num_classes"])
    assert logits.isfinite().all()


@each_file
def test_a_file_describes_its_training(path: Path) -> None:
    _, information = load_checkpoint(path)
    figures, training = information["figures"], information["run"]
    assert figures["data"] == "CIFAR-10 (JPEG)"
    assert figures["images"] == 10_000
    records = [row for run in json.loads(RESULTS.read_text())["runs"] for row in run["rows"]]
    (record,) = (each for each in records if each["seed"] == training["seed"])
    assert figures["top1"] == pytest.approx(record["top1"], abs=0.2)  # half precision moves a few images
    assert training["recipe"] == "cifar10/minutes"
    assert "root" not in information
    assert training["best"]["validation_top1"] == max(each["best"]["validation_top1"] for each in records)
