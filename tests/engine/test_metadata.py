import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import halonet
from halonet.classification.evaluation import evaluate
from halonet.data import AugmentationConfig
from halonet.engine.weights import describe, save_weights
from halonet.errors import UserError
from halonet.training import load_checkpoint
from tests.engine.tiny import NETWORK

NETWORK_OF_TESTS = halonet.create_model("h0", num_classes=2, in_chans=1, **NETWORK)
INFORMATION = describe(NETWORK_OF_TESTS) | {
    "class_names": ["left", "right"],
    "preprocessing": {"image_size": 8, "in_chans": 1, "mean": [0.4], "std": [0.2]},
    "data": "fashion-mnist",
    "root": None,
    "test_split": "test",
}
ABSENT = object()


def saved(folder: Path, changes: dict[str, Any], state: dict[str, torch.Tensor] | None = None) -> Path:
    """Write the network with other metadata, by dotted key."""
    information = copy.deepcopy(INFORMATION)
    for key, value in changes.items():
        *sections, name = key.split(".")
        inner = information
        for section in sections:
            inner = inner[section]
        if value is ABSENT:
            del inner[name]
        else:
            inner[name] = value
    save_weights(folder / "model.safetensors", state or NETWORK_OF_TESTS.state_dict(), information)
    return folder


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def test_described_weights_load(tmp_path: Path):
    network, information = load_checkpoint(saved(tmp_path, {}))
    assert network.config == NETWORK_OF_TESTS.config
    assert information == {name: value for name, value in INFORMATION.items() if value is not None}


@pytest.mark.parametrize(
    "changes",
    [
        {"written_by": "a later version"},
        {"class_names": ABSENT},
        {"preprocessing": ABSENT, "data": ABSENT, "root": ABSENT, "test_split": ABSENT},
        {"config.border": ABSENT},
        {"config.value_ratio": 1},
        {"root": "/elsewhere"},
    ],
)
def test_optional_and_unknown_metadata_are_accepted(changes: dict[str, Any], tmp_path: Path):
    network, _ = load_checkpoint(saved(tmp_path, changes))
    assert network.config == NETWORK_OF_TESTS.config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config.depths": [10**7, 1]}, "config.depths.0 is 10000000, but must be from 1 to 512"),
        ({"config.depths": [1] * 9}, "config.depths is .*, but must be 1 to 8 stages"),
        ({"config.depths": "many"}, "config.depths is 'many', but must be a list"),
        ({"config.image_size": 10**7}, "config.image_size is 10000000, but must be from 1 to 16,384"),
        ({"config.halo_size": 10**9}, "config.halo_size is 1000000000, but must be from 0 to 1,024"),
        ({"config.halo_size": True}, "config.halo_size is True, but must be a whole number"),
        ({"config.stem_width": 1e300}, "config.stem_width is 1e.300, but must be a whole number"),
        ({"config.width_ratio": float("nan")}, "config.width_ratio is nan, but must be a finite number"),
        ({"config.colour": "red"}, "unknown key 'config.colour'"),
        ({"config": 3}, "config is 3, but must be a section with keys of its own"),
        ({"config": {"depths": "x", "stem": "y"}}, "config.stem is 'y', but must be conv7x7"),
        ({"network": ["HaloNet"]}, "does not say which HaloNet"),
        ({"num_classes": ABSENT}, "num_classes is missing"),
        ({"num_classes": 10**12}, "num_classes is 1000000000000, but must be from 0 to 1,000,000"),
        ({"in_chans": "3"}, "in_chans is '3', but must be a whole number"),
        ({"class_names": ["left"]}, "class_names is .'left',., but must be 2 names"),
        ({"class_names": ["left", 3]}, "class_names.1 is 3, but must be text"),
        ({"class_names": "lr"}, "class_names is 'lr', but must be a list"),
        ({"preprocessing.mean": [float("nan")]}, "preprocessing.mean.0 is nan, but must be a finite number"),
        ({"preprocessing.image_size": 10**9}, "preprocessing.image_size is 1000000000, but must be from 1 to 16,384"),
        ({"preprocessing.in_chans": 3, "preprocessing.mean": [0.1] * 3, "preprocessing.std": [0.1] * 3}, "which is 1"),
        ({"preprocessing": []}, r"preprocessing is \[\], but must be a section"),
        ({"data": 3}, "data is 3, but must be text"),
        ({"test_split": ""}, "test_split is '', but must be text of 1 letter or more"),
    ],
)
def test_wrong_metadata_is_refused_before_building(
    changes: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    saved(tmp_path, changes)
    monkeypatch.setattr(halonet, "create_model", lambda *_, **__: pytest.fail("built"))
    with pytest.raises(UserError, match=message):
        load_checkpoint(tmp_path)


def test_an_oversized_description_takes_no_memory(tmp_path: Path):
    wide = {"config.stem_width": 65_536, "config.width_ratio": 100.0, "config.final_width": 65_536}
    assert "of another shape (stem.conv.weight" in refusal(saved(tmp_path, wide))


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.float64, torch.bool])
def test_weights_are_not_cast_with_loss(dtype: torch.dtype, tmp_path: Path):
    state = NETWORK_OF_TESTS.state_dict()
    state["classifier.weight"] = state["classifier.weight"].to(dtype)
    name = str(dtype).removeprefix("torch.")
    message = refusal(saved(tmp_path, {}, state))
    assert f"1 of another type (classifier.weight {name} for float32)" in message


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_shorter_floats_load(dtype: torch.dtype, tmp_path: Path):
    state = {
        name: each.to(dtype) if each.is_floating_point() else each
        for name, each in NETWORK_OF_TESTS.state_dict().items()
    }
    network, _ = load_checkpoint(saved(tmp_path, {}, state))
    loaded = network.state_dict()["classifier.weight"]
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded, state["classifier.weight"].float())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path):
    state = copy.deepcopy(NETWORK_OF_TESTS.state_dict())
    state["classifier.bias"][1] = value
    assert "hold NaN or infinity (classifier.bias)" in refusal(saved(tmp_path, {}, state))


def test_tensors_larger_than_the_file_are_refused(tmp_path: Path):
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"network.a": torch.zeros(1).expand(10**12)}, "halonet": INFORMATION}, path)
    assert "says that its weights have 4,000,000,000,000: it is not a checkpoint" in refusal(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {3: torch.zeros(1)}}, "has weights without names"),
        ({"state_dict": {"a": 3}}, "holds 'a', which is not a plain tensor"),
        ({"state_dict": {}, "halonet": {"network": "HaloNet", "config": {1: 2}}}, "unknown key 'config.1'"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(content: dict[str, Any], message: str, tmp_path: Path):
    torch.save(content, tmp_path / "last.ckpt")
    assert message in refusal(tmp_path / "last.ckpt")


@pytest.mark.parametrize("text", ["[]", "3", "[" * 100_000, "{"])
def test_metadata_must_be_a_dictionary(text: str, tmp_path: Path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors", {"halonet": text})
    assert "it is not a checkpoint of `halonet train`" in refusal(tmp_path)


@pytest.mark.parametrize("data", ["hfds/x/y", "HFDS/x/y"])
def test_a_checkpoint_does_not_lead_to_the_network(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = saved(tmp_path, {"data": data})
    monkeypatch.setattr("halonet.classification.evaluation.load_source", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(UserError, match=f"which would be downloaded: allow it with --data {data}"):
        evaluate(path)
    with pytest.raises(UserError, match="which would be downloaded"):
        evaluate(tmp_path, root=str(tmp_path))


def test_given_data_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class OpenedError(Exception):
        pass

    def opened(data: str, split: str, *, root: Path | None) -> None:
        raise OpenedError(data, split, root)

    path = saved(tmp_path, {"data": "hfds/x/y"})
    monkeypatch.setattr("halonet.classification.evaluation.load_source", opened)
    with pytest.raises(OpenedError, match="hfds/x/y"):
        evaluate(path, "hfds/x/y")


def test_evaluation_uses_the_training_preprocessing():
    from halonet.classification.evaluation import preprocessing

    assert preprocessing(INFORMATION, "it") == AugmentationConfig(image_size=8, in_chans=1, mean=(0.4,), std=(0.2,))
