import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import halonet
from halonet.engine.weights import describe, save_weights
from halonet.errors import UserError
from halonet.training import load_checkpoint
from tests.engine.tiny import NETWORK


class Payload:
    """Makes a folder if it is unpickled."""

    def __init__(self, folder: str):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.fixture
def copy(finished_run: Path, tmp_path: Path):
    """A file of the finished run, cut to a part of its bytes."""

    def cut(name: str, part: float) -> Path:
        content = (finished_run / name).read_bytes()
        path = tmp_path / Path(name).name
        path.write_bytes(content[: int(part * len(content))])
        return path

    return cut


def test_run_folder_weights_and_checkpoint_agree(finished_run: Path):
    batch = torch.randn(2, 1, 8, 8)
    outputs = []
    for path in (finished_run, finished_run / "model.safetensors", finished_run / "checkpoints" / "last.ckpt"):
        network, information = load_checkpoint(path)
        assert not network.training
        assert information["class_names"] == ["left", "right"]
        assert information["num_classes"] == 2
        assert information["in_chans"] == 1
        assert information["preprocessing"]["image_size"] == 8
        outputs.append(network(batch))
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def with_joined_projections(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Name the weights as old versions did, in which a strided layer had one matrix."""
    old = dict(state)
    for name in [name for name in state if name.endswith(".query.weight")]:
        prefix = name.removesuffix("query.weight")
        old[f"{prefix}qkv.weight"] = torch.cat([old.pop(name), old.pop(f"{prefix}key_value.weight")])
    return old


def test_old_joined_projections_load(finished_run: Path, tmp_path: Path):
    network, information = load_checkpoint(finished_run)
    old = with_joined_projections(network.state_dict())
    assert old.keys() != network.state_dict().keys()
    save_weights(tmp_path / "model.safetensors", old, information)
    loaded, _ = load_checkpoint(tmp_path / "model.safetensors")
    batch = torch.randn(2, 1, 8, 8)
    assert torch.equal(loaded(batch), network(batch))


@pytest.mark.parametrize("matrix", [torch.zeros(()), torch.zeros(0), torch.zeros(7, 8)])
def test_misshapen_joined_projections_are_refused(finished_run: Path, tmp_path: Path, matrix: torch.Tensor):
    network, information = load_checkpoint(finished_run)
    old = with_joined_projections(network.state_dict())
    old["stages.1.0.mixer.qkv.weight"] = matrix
    save_weights(tmp_path / "model.safetensors", old, information)
    assert "1 unexpected (stages.1.0.mixer.qkv.weight)" in refusal(tmp_path / "model.safetensors")


def test_the_weights_are_the_average(finished_run: Path):
    checkpoint = torch.load(finished_run / "checkpoints" / "last.ckpt", weights_only=True)
    network, _ = load_checkpoint(finished_run)
    weight = network.state_dict()["classifier.weight"]
    assert torch.equal(weight, checkpoint["state_dict"]["network.classifier.weight"])
    assert not torch.equal(weight, checkpoint["current_model_state"]["network.classifier.weight"])


def test_a_missing_checkpoint_is_refused(tmp_path: Path):
    assert "there is no checkpoint" in refusal(tmp_path / "gone.ckpt")
    for name in ("a" * 300, "a" * 300 + ".ckpt", "a\0b", "a\0.safetensors"):
        assert "there is no checkpoint" in refusal(tmp_path / name)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"there is no checkpoint .*folder/model.safetensors"):
        load_checkpoint(tmp_path / "folder")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_what_is_no_file_is_not_opened(tmp_path: Path):
    """Opening a pipe would wait for ever."""
    for name in ("pipe.safetensors", "pipe.ckpt"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "folder" / "model.safetensors").mkdir(parents=True)
    (tmp_path / "loop.safetensors").symlink_to("loop.safetensors")
    for name in ("pipe.safetensors", "pipe.ckpt", "folder", "loop.safetensors"):
        assert "there is no checkpoint" in refusal(tmp_path / name)


UNREADABLE = Path("/proc/self/mem")  # for root too


@pytest.mark.skipif(not UNREADABLE.exists(), reason="no /proc")
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    (tmp_path / "x.safetensors").symlink_to(UNREADABLE)
    assert "cannot read" in refusal(tmp_path / "x.safetensors")
    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").symlink_to(UNREADABLE)
    with pytest.raises(UserError, match=r"cannot read .*config.json: Input/output error"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "checkpoints/last.ckpt"])
@pytest.mark.parametrize("part", [0, 0.001, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(copy, name: str, part: float):
    assert "truncated" in refusal(copy(name, part))


@pytest.mark.parametrize("content", [b"these are words\n", b"\x80\x04K\x01.", bytes(range(256)), b"PK\x03\x04 nothing"])
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_files_of_other_kinds_are_refused(tmp_path: Path, content: bytes, suffix: str):
    path = tmp_path / f"other{suffix}"
    path.write_bytes(content)
    assert "is not a" in refusal(path) or "holds a int, not a checkpoint" in refusal(path)


def test_pickled_code_is_refused_and_never_run(tmp_path: Path):
    torch.save({"state_dict": {}, "payload": Payload(str(tmp_path / "made"))}, tmp_path / "code.ckpt")
    assert "is refused: it holds pickled Python objects" in refusal(tmp_path / "code.ckpt")
    torch.save(nn.Linear(2, 2), tmp_path / "module.ckpt")
    assert "is refused: it holds pickled Python objects" in refusal(tmp_path / "module.ckpt")
    assert not (tmp_path / "made").exists()


def test_checkpoints_of_other_programs_are_refused(tmp_path: Path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "weights.pth")
    assert "not a checkpoint of `halonet train`: it has no state_dict" in refusal(tmp_path / "weights.pth")
    torch.save({"state_dict": nn.Linear(2, 2).state_dict()}, tmp_path / "other.ckpt")
    assert "does not say which HaloNet" in refusal(tmp_path / "other.ckpt")
    save_file(nn.Linear(2, 2).state_dict(), tmp_path / "other.safetensors")
    assert "does not say which HaloNet" in refusal(tmp_path / "other.safetensors")
    save_weights(tmp_path / "linear.safetensors", nn.Linear(2, 2).state_dict(), describe(nn.Linear(2, 2)))
    assert "saved from a Linear" in refusal(tmp_path / "linear.safetensors")


def test_weights_of_another_model_are_refused_briefly(tmp_path: Path):
    network = halonet.create_model("h0", num_classes=2, in_chans=1, **NETWORK)
    state = network.state_dict()
    state["classifier.weight"] = torch.zeros(3, 16)
    state["stranger"] = torch.zeros(1)
    removed = [name for name in state if name.startswith("stages")]
    for name in removed:
        del state[name]
    save_weights(tmp_path / "model.safetensors", state, describe(network))
    message = refusal(tmp_path / "model.safetensors")
    assert "from another model" in message
    assert f"{len(removed)} missing ({', '.join(removed[:3])} and {len(removed) - 3} more)" in message
    assert "1 unexpected (stranger)" in message
    assert "1 of another shape (classifier.weight [3, " in message


def test_an_impossible_description_is_refused(tmp_path: Path):
    network = halonet.create_model("h0", num_classes=2, in_chans=1, **NETWORK)
    information = describe(network)
    information["config"]["stem"] = "conv9x9"
    save_weights(tmp_path / "model.safetensors", network.state_dict(), information)
    assert "the description in" in refusal(tmp_path / "model.safetensors")
    assert "config.stem is 'conv9x9', but must be conv7x7" in refusal(tmp_path / "model.safetensors")


def test_the_description_of_weights_is_json(finished_run: Path):
    _, information = load_checkpoint(finished_run)
    assert json.loads(json.dumps(information)) == information
