"""Trained weights with everything that evaluation and prediction need to know; reading them runs no code."""

import dataclasses
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from halonet.complaints import shown
from halonet.engine.checksums import KEY, DamagedFileError, check_file, check_tensors, checksum
from halonet.engine.data import KeyedData
from halonet.engine.files import write_atomically
from halonet.engine.hub_config import CONFIG, read_hub_config
from halonet.errors import UserError
from halonet.layers import fit_state
from halonet.models.pretrained import TRAINED, weights_path

ModuleT = TypeVar("ModuleT", bound=nn.Module)

_PREFIX = "network."  # of the network's tensors in a Lightning checkpoint
_WRAPPER_PREFIX = "timm_model."  # in folders of transformers, unless the network came from one of timm's
_METADATA_KEY = "halonet"  # of the description: JSON in a safetensors file, a dictionary in a Lightning checkpoint


def describe(network: nn.Module, data: Any = None) -> dict[str, Any]:
    """Describe what weights belong to.

    Args:
        network: A HaloNet or a detector; for any other module, only those of the values below that it has.
        data: The data module that it was trained on, or None.

    Returns:
        JSON values: `network` (the class), `config` (if it is a dataclass), `num_classes`, `in_chans`, and what a
        `KeyedData` says of itself, such as `class_names`, `preprocessing`, `data` and `test_split`.
    """
    information: dict[str, Any] = {"network": type(network).__name__}
    if dataclasses.is_dataclass(config := getattr(network, "config", None)) and not isinstance(config, type):
        information["config"] = dataclasses.asdict(config)
    for name in ("num_classes", "in_chans"):
        if hasattr(network, name):
            information[name] = getattr(network, name)
    if isinstance(data, KeyedData):
        information |= data.describe()
    return json.loads(json.dumps(information))


def save_weights(path: Path, state: dict[str, Tensor], information: dict[str, Any]) -> None:
    """Write a safetensors file with a checksum, in one step; equal arguments give equal bytes.

    Args:
        path: The file.
        state: The network's state dictionary.
        information: As `describe` returns it.

    Raises:
        UserError: The disk is full.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    metadata = {"format": "pt", _METADATA_KEY: json.dumps(information)}
    metadata[KEY] = checksum(tensors, metadata)
    head, content = _with_sorted_metadata(safetensors.torch.save(tensors, metadata))
    write_atomically(path, lambda file: (file.write(head), file.write(content)))


def _with_sorted_metadata(content: bytes) -> tuple[bytes, memoryview]:
    """Sort the metadata of a safetensors file, whose order the library leaves to chance; return header and data."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, memoryview(content)[8 + size :]


def build_checked(build: Callable[[], ModuleT], state: dict[str, Tensor], source: str) -> ModuleT:
    """Build a network and load its weights, but only if they fit: a description alone must not take memory.

    Args:
        build: Makes the network.
        state: The state dictionary.
        source: The checkpoint, for the message.

    Returns:
        The network, in evaluation mode on the CPU.

    Raises:
        UserError: The weights do not fit, or are not finite.
    """
    with torch.device("meta"):
        check_state(build(), state, source)
    network = build()
    network.load_state_dict(state)
    return network.eval()


class Weights(NamedTuple):
    """The content of a checkpoint.

    Attributes:
        state: The network's state dictionary.
        information: As `describe` returned it.
        path: The file.
    """

    state: dict[str, Tensor]
    information: dict[str, Any]
    path: Path


def read_weights(path: str | Path) -> Weights:
    """Read a checkpoint without building anything.

    Args:
        path: A run folder, a folder for the Hugging Face Hub, a `model.safetensors`, a `.ckpt`, or the name of weights
            that come with the package. If the run has an EMA, its average is read.

    Raises:
        UserError: The file is missing, truncated, not a checkpoint, or holds pickled code.
    """
    named = None if os.path.exists(path) else weights_path(str(path))  # unlike Path.exists, false for impossible names
    path = Path(path) if named is None else named
    if os.path.isdir(path):
        path = path / "model.safetensors"
    if not os.path.isfile(path):  # a pipe would block
        if path.name == "model.safetensors" and path.with_name("pytorch_model.bin").is_file():
            raise UserError(
                f"{path.parent} holds pytorch_model.bin, which can run code when it is read: save the network with "
                "safe_serialization=True"
            )
        raise UserError(
            f"there is no checkpoint {path}: give a run folder, a model.safetensors, a .ckpt file or one of "
            f"{', '.join(TRAINED)}"
        )
    state, information = _read_safetensors(path) if path.suffix == ".safetensors" else _read_lightning(path)
    if not information and (config := path.with_name(CONFIG)).is_file():
        information = read_hub_config(config)
        state = {name.removeprefix(_WRAPPER_PREFIX): tensor for name, tensor in state.items()}
    return Weights(state, information, path)


def load_state(network: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load a state dictionary after `check_state`; takes and raises the same."""
    check_state(network, state, source)
    network.load_state_dict(state)


def check_state(network: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Check that a state dictionary fits a network, which may be on the meta device.

    Args:
        network: The network.
        state: Tensors by name. A shorter floating-point type fits a longer one, which has all its values.
        source: The checkpoint, for the message.

    Raises:
        UserError: Names, shapes or types differ, or a weight is NaN or infinite.
    """
    own, state = network.state_dict(), fit_state(network, state)
    both = [name for name in own if name in state]
    problems = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "of another shape": [
            f"{name} {list(state[name].shape)} for {list(own[name].shape)}"
            for name in both
            if state[name].shape != own[name].shape
        ],
        "of another type": [
            f"{name} {_name_of(state[name].dtype)} for {_name_of(own[name].dtype)}"
            for name in both
            if not _holds(own[name].dtype, state[name].dtype)
        ],
    }
    if any(problems.values()):
        raise UserError(
            f"the weights in {source} are from another model than this {type(network).__name__}: "
            + "; ".join(f"{len(names)} {what} ({_briefly(names)})" for what, names in problems.items() if names)
        )
    wrong = [name for name in both if state[name].is_floating_point() and not state[name].isfinite().all()]
    if wrong:
        raise UserError(
            f"the weights in {source} hold NaN or infinity ({_briefly(wrong)}): the training that wrote them diverged; "
            "take an earlier checkpoint"
        )


def network_state(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """Return the network's state dictionary in a `.ckpt`: the average, if the run has an EMA."""
    return {name.removeprefix(_PREFIX): tensor for name, tensor in checkpoint["state_dict"].items()}


def read_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a `.ckpt`, tensors and plain values only.

    Raises:
        UserError: The file is missing, truncated, not a checkpoint, or holds pickled code.
    """
    if not os.path.isfile(path):
        raise UserError(f"there is no checkpoint {path}")
    try:
        check_file(path)
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except DamagedFileError:
        raise
    except PermissionError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # parsing arbitrary bytes can raise anything
        if isinstance(error, pickle.UnpicklingError) and ("GLOBAL" in str(error) or "allowlisted" in str(error)):
            raise UserError(
                f"{path} is refused: it holds pickled Python objects, which can run code when read; "
                "have its author save a state dictionary of tensors, or a .safetensors file"
            ) from error
        size = path.stat().st_size
        raise DamagedFileError(f"{path} is not a checkpoint, or a truncated one ({size:,} bytes)") from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path} holds a {type(checkpoint).__name__}, not a checkpoint's dictionary")
    return checkpoint


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    except safetensors.SafetensorError as error:
        size = path.stat().st_size
        raise DamagedFileError(f"{path} is not a safetensors file, or a truncated one ({size:,} bytes)") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    check_tensors(path, state, metadata)
    try:
        information = json.loads(metadata.get(_METADATA_KEY, "{}"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} has damaged metadata: it is not a checkpoint of `halonet train`") from error
    if not isinstance(information, dict):
        raise UserError(f"{path} has metadata of another program: it is not a checkpoint of `halonet train`")
    return state, information


def _read_lightning(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    checkpoint = read_checkpoint(path)
    state, information = checkpoint.get("state_dict"), checkpoint.get(_METADATA_KEY, {})
    if not isinstance(state, dict) or not isinstance(information, dict):
        raise UserError(f"{path} is a PyTorch file, but not a checkpoint of `halonet train`: it has no state_dict")
    _check_tensors(state, path)
    return network_state(checkpoint), information


def _check_tensors(state: dict[Any, Any], path: Path) -> None:
    """Refuse values that are not plain tensors, and tensors that claim more memory than the file has."""
    for name, tensor in state.items():
        if not isinstance(name, str):
            raise UserError(f"{path} has weights without names: it is not a checkpoint of `halonet train`")
        is_plain = isinstance(tensor, Tensor) and tensor.layout == torch.strided and not tensor.is_quantized
        if not is_plain:
            raise UserError(f"{path} holds {shown(name)}, which is not a plain tensor, among its weights")
    claimed, size = sum(tensor.numel() * tensor.element_size() for tensor in state.values()), path.stat().st_size
    if claimed > size:
        raise UserError(
            f"{path} has {size:,} bytes, but says that its weights have {claimed:,}: it is not a checkpoint"
        )


def _holds(own: torch.dtype, given: torch.dtype) -> bool:
    """Whether one type holds all values of another."""
    both_floating = own.is_floating_point and given.is_floating_point
    return own == given or (both_floating and torch.promote_types(own, given) == own)


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _briefly(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
