"""The weights in the package: small files in half precision with a description and results."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import halonet
from halonet.training import load_checkpoint

FOLDER = Path(halonet.__file__).parent / "models/weights"
RESULTS = Path(__file__).parents[2] / "results" / "training"
FILES = sorted(FOLDER.glob("*.safetensors"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


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
    assert information["data"].replace("-", "_") == data
    assert len(information["class_names"]) == information["num_classes"]
    with torch.no_grad():
        logits = network(torch.randn(2, network.in_chans, 32, 32))
    assert logits.shape == (2, information["num_classes"])
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("name", "recipe", "data", "images", "results"),
    [
        ("mini32.cifar10", "cifar10/minutes", "CIFAR-10 (JPEG)", 10_000, "cifar10_minutes.json"),
        ("tiny28.fashion_mnist", "fashion_mnist", "fashion-mnist", 2_000, "fashion_mnist_avx512.json"),
    ],
)
def test_a_file_describes_its_training(name: str, recipe: str, data: str, images: int, results: str) -> None:
    _, information = load_checkpoint(name)
    figures, training = information["figures"], information["run"]
    assert (figures["data"], figures["images"], training["recipe"]) == (data, images, recipe)
    records = [row for run in json.loads((RESULTS / results).read_text())["runs"] for row in run["rows"]]
    (record,) = (each for each in records if each["seed"] == training["seed"])
    assert figures["top1"] == pytest.approx(record["top1"], abs=0.2)  # half precision moves a few images
    assert "root" not in information
    assert training["best"]["validation_top1"] == max(each["best"]["validation_top1"] for each in records)
