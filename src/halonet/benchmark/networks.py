"""Networks to race: ours by the names of their rows, timm's as `timm/NAME`."""

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

import timm
import torch
from timm.layers.halo_attn import HaloAttn
from torch import Tensor, nn

from halonet.errors import UserError, unknown_name
from halonet.layers import HaloAttention
from halonet.models import HALONETS, create_model
from halonet.ops.attention import gradients

TIMM = "timm/"
# The modules that call the operator, by its name in them.
CALLERS = ("halonet.layers.halo_attention", "halonet.models.accelerate")


def create_network(name: str, **changes: Any) -> nn.Module:
    """Build a network whose every part takes part in its result.

    Args:
        name: A row of `HALONETS`, or "timm/" and a name of timm.
        **changes: Fields of `HaloNetConfig`, for a row of ours.

    Raises:
        UserError: If there is no such network.
    """
    torch.manual_seed(0)
    if not name.startswith(TIMM):
        known = [*HALONETS, *(TIMM + each for each in ("halonet_h1", "resnet50", "efficientnet_b0"))]
        if name not in HALONETS:
            raise UserError(unknown_name("model", name, known))
        return shake(create_model(name, **changes))
    try:
        return shake(timm.create_model(name.removeprefix(TIMM)))
    except RuntimeError as error:
        raise UserError(f"unknown model {name!r}: {error}") from error


def own_image_size(name: str) -> int:
    """Side in pixels of the images that one of timm's networks is made for, since some refuse others; 256 if unknown.

    Args:
        name: "timm/" and a name of timm.
    """
    config = timm.get_pretrained_cfg(name.removeprefix(TIMM))
    return 256 if config is None else config.input_size[-1]


def shake(network: nn.Module) -> nn.Module:
    """Give batch norms statistics and factors of a network in use, in place.

    A new network's last norm of each block is zero, and would hide whatever the block computes from every comparison.
    The shifts are positive: SiLU halves what is small, and after twenty blocks of H1 nothing of the image, nor of
    attention, would be left in the logits.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.bias, 0.0, 1.0)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
    return network


def has_halo_attention(network: nn.Module) -> bool:
    """Whether a network has a layer of halo attention, ours or timm's."""
    return any(isinstance(module, HaloAttention | HaloAttn) for module in network.modules())


class _Values(torch.autograd.Function):
    """The values where the queries stand; queries and keys receive gradients of zero, so that projections learn."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, strides: tuple[int, int]) -> Tensor:
        ctx.strides = strides
        ctx.save_for_backward(query, key, value)
        return value[:, :: strides[0], :: strides[1]].contiguous()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = given
        # Laid out as a fused kernel returns them.
        saved = ctx.saved_tensors
        joined = gradients.count_joined(*saved)
        memory = tuple(each.zero_() for each in gradients.allocate(joined, *saved))
        query, key, value = gradients.parts(joined, memory, saved)
        value[:, :: ctx.strides[0], :: ctx.strides[1]] = gradient
        return query, key, value, None


def values_only(query: Tensor, key: Tensor, value: Tensor, *_: Any, stride: Any = 1, **__: Any) -> Tensor:
    """Stand in for `halo_attention`: what would be averaged, at the queries' pixels."""
    return _Values.apply(query, key, value, stride if isinstance(stride, tuple) else (stride, stride))  # pyright: ignore[reportReturnType]


@contextlib.contextmanager
def attention_replaced_by_values() -> Iterator[None]:
    """Let the layers, ours and timm's accelerated ones, call `values_only` instead of the operator.

    What a network then takes is the bound of what it can reach by a faster operator.
    """
    callers = [vars(importlib.import_module(name)) for name in CALLERS]
    originals = [names["halo_attention"] for names in callers]
    for names in callers:
        names["halo_attention"] = values_only
    try:
        yield
    finally:
        for names, original in zip(callers, originals, strict=True):
            names["halo_attention"] = original
