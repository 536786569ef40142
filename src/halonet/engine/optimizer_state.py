"""Loads optimizer states of old runs, in which a strided attention had one matrix for all projections."""

import itertools
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from halonet.layers import HaloAttention


def accept_joined_projections(optimizer: Optimizer, network: nn.Module) -> None:
    """Let an optimizer load the state of an old run, splitting that of `qkv` into `query` and `key_value`.

    Args:
        optimizer: Its groups hold the network's parameters in the network's order.
        network: The network that it trains.
    """
    followers = {}
    for layer in network.modules():
        if isinstance(layer, HaloAttention) and layer.stride != (1, 1):
            followers |= {id(layer.query.weight): layer.key_value.weight}

    def divide(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any] | None:
        ours = [_joined(group["params"], followers) for group in optimizer.param_groups]
        saved = [group["params"] for group in state["param_groups"]]
        if [len(each) for each in ours] != [len(each) for each in saved]:
            return None  # a new state, or one of another network, which PyTorch refuses
        counter, states, groups = itertools.count(), {}, []
        for group, old_numbers, parameters in zip(state["param_groups"], saved, ours, strict=True):
            numbers = []
            for old_number, parts in zip(old_numbers, parameters, strict=True):
                for entry in _cut(state["state"].get(old_number), [len(part) for part in parts]):
                    numbers.append(next(counter))
                    if entry is not None:
                        states[numbers[-1]] = entry
            groups.append(group | {"params": numbers})
        return state | {"state": states, "param_groups": groups}

    if followers:
        optimizer.register_load_state_dict_pre_hook(divide)


def _joined(parameters: Sequence[Tensor], followers: dict[int, Tensor]) -> list[list[Tensor]]:
    """Group the parameters that used to be one."""
    joined: list[list[Tensor]] = []
    for parameter in parameters:
        if joined and followers.get(id(joined[-1][-1])) is parameter:
            joined[-1].append(parameter)
        else:
            joined.append([parameter])
    return joined


def _cut(entry: dict[str, Any] | None, rows: list[int]) -> list[dict[str, Any] | None]:
    """Split the state of one parameter by rows; a number, such as Adam's step, is copied to each part."""
    if entry is None or len(rows) == 1:
        return [entry] * len(rows)
    parts: list[dict[str, Any] | None] = []
    for index in range(len(rows)):
        tensors = {name: value for name, value in entry.items() if isinstance(value, Tensor)}
        cut = {name: (value.split(rows)[index] if value.dim() else value).clone() for name, value in tensors.items()}
        parts.append(entry | cut)
    return parts
