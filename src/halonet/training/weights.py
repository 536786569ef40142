"""Trained weights with all that evaluation and prediction need to know, read without running any code."""

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

import halonet
from halonet.errors import UserError
from halonet.layers import fit_state
from halonet.training.files import write_atomically
from halonet.training.keyed_data import KeyedData

_PREFIX = "network."  # of the network's tensors in a Lightning checkpoint
_METADATA_KEY = "halonet"  # of the JSON in a safetensors file, and of the dictionary in a Lightning checkpoint


def describe(network: nn.Module, data: Any = None) -> dict[str, Any]:
    """Say what weights belong to.

    Args:
        network: A HaloNet; of any other module only the class is told.
        data: A data module of this package that it was trained on, or None.

    Returns:
        JSON values: `network` (the class), `config` (if it is a dataclass), `num_classes`, `in_chans`, and what the
        data module says of itself, such as `class_names`, `preprocessing`, `data` and `test_split`.
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
    """Write a `model.safetensors`.

    Args:
        path: Where; a file that exists is replaced in one step.
        state: The network's state dictionary.
        information: As `describe` returns it.

    Raises:
        UserError: The disk is full.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    content = safetensors.torch.save(tensors, {"format": "pt", _METADATA_KEY: json.dumps(information)})
    write_atomically(path, lambda file: file.write(content))


def load_checkpoint(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Build the network that a checkpoint holds, in evaluation mode on the CPU.

    Args:
        path: A run folder, a `model.safetensors` or a `.ckpt`. Of a checkpoint of a run with EMA, the average.

    Returns:
        The network, and what `describe` knew of it.

    Raises:
        UserError: The file is missing, truncated, no checkpoint, from another model, or holds pickled code.
    """
    state, information, path = read_weights(path)
    if "config" not in information or information["network"] != halonet.HaloNet.__name__:
        kind = information.get("network")
        raise UserError(
            f"{path} does not say which HaloNet its weights belong to"
            + (f" (it was saved from a {kind})" if kind else "")
            + ": only checkpoints written by `halonet train`, or from its Classifier, do"
        )
    network = _build(information, path)
    load_state(network, state, str(path))
    return network.eval(), information


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any], Path]:
    """Read what a checkpoint holds, without building anything.

    Args:
        path: A run folder, a `model.safetensors` or a `.ckpt`. Of a checkpoint of a run with EMA, the average.

    Returns:
        The network's state dictionary, what `describe` knew of it, and the file.

    Raises:
        UserError: The file is missing, truncated, no checkpoint, or holds pickled code.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.exists():
        raise UserError(f"there is no checkpoint {path}: give a run folder, a model.safetensors or a .ckpt file")
    state, information = _read_safetensors(path) if path.suffix == ".safetensors" else _read_lightning(path)
    return state, information, path


def load_state(network: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load a state dictionary, or say briefly why it does not fit.

    Args:
        network: To load into.
        state: Tensors by name.
        source: Whose they are, for the message.

    Raises:
        UserError: Names or shapes differ.
    """
    own, state = network.state_dict(), fit_state(network, state)
    problems = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "of another shape": [
            f"{name} {list(state[name].shape)} for {list(own[name].shape)}"
            for name in own
            if name in state and state[name].shape != own[name].shape
        ],
    }
    if any(problems.values()):
        raise UserError(
            f"the weights in {source} are from another model than this {type(network).__name__}: "
            + "; ".join(f"{len(names)} {what} ({_briefly(names)})" for what, names in problems.items() if names)
        )
    network.load_state_dict(state)


def network_state(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """Take the network's weights out of a `.ckpt`: the average, if the run kept one.

    Args:
        checkpoint: As `read_checkpoint` returns it.

    Returns:
        The network's state dictionary.
    """
    return {name.removeprefix(_PREFIX): tensor for name, tensor in checkpoint["state_dict"].items()}


def read_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a `.ckpt`, tensors and plain values only.

    Args:
        path: The file.
        map_location: As in `torch.load`.

    Returns:
        The checkpoint's dictionary.

    Raises:
        UserError: The file is missing, truncated, no checkpoint, or holds pickled code.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # whatever the parser of arbitrary bytes met
        if isinstance(error, pickle.UnpicklingError) and ("GLOBAL" in str(error) or "allowlisted" in str(error)):
            raise UserError(
                f"{path} is refused: it holds pickled Python objects, which can run code when read; "
                "have its author save a state dictionary of tensors, or a .safetensors file"
            ) from error
        size = path.stat().st_size
        raise UserError(f"{path} is not a checkpoint, or a truncated one ({size:,} bytes)") from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path} holds a {type(checkpoint).__name__}, not a checkpoint's dictionary")
    return checkpoint


def with_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """Undo what JSON and YAML do to tuples.

    Args:
        fields: Of a dataclass.

    Returns:
        The same, with tuples for lists.
    """
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    except safetensors.SafetensorError as error:
        size = path.stat().st_size
        raise UserError(f"{path} is not a safetensors file, or a truncated one ({size:,} bytes)") from error
    try:
        return state, json.loads(metadata.get(_METADATA_KEY, "{}"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} has damaged metadata: it is not a checkpoint of `halonet train`") from error


def _read_lightning(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    checkpoint = read_checkpoint(path)
    state, information = checkpoint.get("state_dict"), checkpoint.get(_METADATA_KEY, {})
    if not isinstance(state, dict) or not isinstance(information, dict):
        raise UserError(f"{path} is a PyTorch file, but not a checkpoint of `halonet train`: it has no state_dict")
    return network_state(checkpoint), information


def _build(information: dict[str, Any], path: Path) -> nn.Module:
    try:
        config = halonet.HaloNetConfig(**with_tuples(information["config"]))
        return halonet.HaloNet(config, num_classes=information["num_classes"], in_chans=information["in_chans"])
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(f"{path} describes a model that this version of halonet cannot build: {error}") from error


def _briefly(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
