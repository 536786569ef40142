import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch

from halonet.engine.checksums import KEY, DamagedFileError, check_file, save_with_checksum
from halonet.engine.weights import read_checkpoint, read_weights, save_weights

VALUE = {"weights": torch.arange(300.0), "count": torch.tensor(7), "words": ["a", {"b": 1.5}]}
STATE = {"weight": torch.randn(8, 4), "half": torch.ones(3, dtype=torch.bfloat16), "count": torch.tensor(7)}
INFORMATION = {"network": "HaloNet", "class_names": ["ä", "b"], "num_classes": 2}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "last.ckpt"
    with path.open("wb") as file:
        save_with_checksum(VALUE, file)
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_weights(tmp_path / "model.safetensors", STATE, INFORMATION)
    return tmp_path / "model.safetensors"


def flip(path: Path, place: int, count: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[place : place + count] = bytes(byte ^ 0x41 for byte in content[place : place + count])
    path.write_bytes(content)


def test_torch_load_ignores_the_checksum(checkpoint: Path, tmp_path: Path):
    loaded = torch.load(checkpoint, weights_only=True)
    assert torch.equal(loaded["weights"], VALUE["weights"])
    assert loaded["words"] == VALUE["words"]
    assert zipfile.ZipFile(checkpoint).testzip() is None
    assert read_checkpoint(checkpoint).keys() == VALUE.keys()


@pytest.mark.parametrize("count", [1, 64])
def test_flipped_bytes_in_a_checkpoint_are_detected(checkpoint: Path, count: int):
    sound = checkpoint.read_bytes()
    for place in [*range(0, len(sound), 41), *range(len(sound) - 70, len(sound))]:
        flip(checkpoint, place, count)
        with pytest.raises(DamagedFileError):
            read_checkpoint(checkpoint)
        checkpoint.write_bytes(sound)


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99])
def test_a_truncated_checkpoint_is_detected(checkpoint: Path, share: float):
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DamagedFileError, match="last.ckpt"):
        read_checkpoint(checkpoint)


def test_an_old_checkpoint_is_checked_by_its_zip_checksums(tmp_path: Path):
    path = tmp_path / "last.ckpt"
    torch.save(VALUE, path)
    check_file(path)
    flip(path, path.read_bytes().index(VALUE["weights"].numpy().tobytes()) + 400)
    torch.load(path, weights_only=True)  # it does not look
    with pytest.raises(DamagedFileError, match="last.ckpt is damaged"):
        read_checkpoint(path)


def test_the_same_weights_give_the_same_bytes(weights: Path):
    contents = set()
    for _ in range(20):
        save_weights(weights, STATE, INFORMATION)
        contents.add(weights.read_bytes())
    assert len(contents) == 1
    assert safetensors.torch.load(contents.pop()).keys() == STATE.keys()


def test_flipped_bytes_in_weights_are_detected(weights: Path):
    sound = weights.read_bytes()
    expected, information, _ = read_weights(weights)
    assert information == INFORMATION
    for place in range(len(sound)):
        flip(weights, place)
        try:
            state, changed, _ = read_weights(weights)
        except ValueError:  # UserError, or a name that is no Unicode
            pass
        else:  # a name of the metadata that nothing depends on
            assert changed in (INFORMATION, {})
            assert all(torch.equal(state[name], expected[name]) for name in expected)
        weights.write_bytes(sound)


def test_a_flipped_bit_of_a_tensor_is_detected(weights: Path):
    flip(weights, weights.stat().st_size - 3)
    with pytest.raises(DamagedFileError, match="model.safetensors is damaged"):
        read_weights(weights)


def test_old_weights_without_checksum_load(weights: Path):
    content = safetensors.torch.save(STATE, {"format": "pt", "halonet": '{"num_classes": 2}'})
    weights.write_bytes(content)
    with safetensors.safe_open(weights, "pt") as file:
        assert KEY not in file.metadata()
    assert read_weights(weights)[1] == {"num_classes": 2}
