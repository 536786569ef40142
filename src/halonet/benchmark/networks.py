"""Networks to time: ours by the names of their rows, timm's as `timm/NAME`; and attention replaced by its values."""

import contextlib
from collections.abc import Iterator
from typing import Any

import timm
import torch
from timm.layers.halo_attn import HaloAttn
from torch import Tensor, nn

from halonet.errors import UserError, unknown_name
from halonet.layers import HaloAttention
from halonet.models import HALONETS, create_model
from halonet.ops.attention.backends import BACKENDS, Backend
from halonet.ops.attention.geometry import Geometry
from halonet.ops.attention.packed import Packed, unpack

TIMM = "timm/"
VALUES_ONLY = "values_only"


def create_network(name: str, **changes: Any) -> nn.Module:
    """Build a network with seed 0 and norms that hide nothing, see `randomize_norms`.

    `name` is a row of `HALONETS`, to which fields of `HaloNetConfig` may be changed, or "timm/" and a name of timm;
    raises a `UserError` if there is none.
    """
    torch.manual_seed(0)
    if not name.startswith(TIMM):
        known = [*HALONETS, *(TIMM + each for each in ("halonet_h1", "resnet50", "efficientnet_b0"))]
        if name not in HALONETS:
            raise UserError(unknown_name("model", name, known))
        return randomize_norms(create_model(name, **changes))
    try:
        return randomize_norms(timm.create_model(name.removeprefix(TIMM)))
    except RuntimeError as error:
        raise UserError(f"unknown model {name!r}: {error}") from error


def native_image_size(name: str) -> int:
    """Image side in pixels that one of timm's networks ("timm/NAME") is made for, since some refuse others; or 256."""
    config = timm.get_pretrained_cfg(name.removeprefix(TIMM))
    return 256 if config is None else config.input_size[-1]


def randomize_norms(network: nn.Module) -> nn.Module:
    """Give batch norms statistics and factors like those of a trained network, in place.

    The last norm of each block of a new network is zero, which would hide the block from every comparison. The shifts
    are positive because SiLU halves small values: after twenty blocks of H1 the logits would not depend on the image.
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
    """Values at the queries' pixels; the gradients of queries and keys are zeros, so that projections learn."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, strides: tuple[int, int]) -> Tensor:
        ctx.strides = strides
        ctx.save_for_backward(query, key, value)
        return value[:, :: strides[0], :: strides[1]].contiguous()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = (each.new_zeros(each.shape) for each in ctx.saved_tensors)
        value[:, :: ctx.strides[0], :: ctx.strides[1]] = given[0]
        return query, key, value, None


class _PackedValues(torch.autograd.Function):
    """The same of a `Packed`, whose gradient is packed as that of a fused backend."""

    @staticmethod
    def forward(ctx: Any, strides: tuple[int, int], *packed: Any) -> Tensor:
        tensor, query, *ctx.sizes = packed
        ctx.strides = strides
        ctx.save_for_backward(tensor, query)
        return unpack(Packed(*packed))[2][:, :: strides[0], :: strides[1]].contiguous()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        tensor, query = (None if each is None else each.new_zeros(each.shape) for each in ctx.saved_tensors)
        assert tensor is not None
        values = unpack(Packed(tensor, query, *ctx.sizes))[2]
        values[:, :: ctx.strides[0], :: ctx.strides[1]] = given[0]
        return None, tensor, query, None, None, None


def _run_values_only(query: Tensor, key: Tensor, value: Tensor, *_: Any, geometry: Geometry, **__: Any) -> Tensor:
    return _Values.apply(query, key, value, (geometry.rows.stride, geometry.columns.stride))  # pyright: ignore[reportReturnType]


def _run_packed_values_only(packed: Packed, *_: Any, geometry: Geometry, **__: Any) -> Tensor:
    return _PackedValues.apply((geometry.rows.stride, geometry.columns.stride), *packed)  # pyright: ignore[reportReturnType]


@contextlib.contextmanager
def attention_replaced_by_values() -> Iterator[None]:
    """Put a backend first that returns values only, so that "auto" takes it.

    The time of a network is then the bound of what a faster operator can reach. `use_backend` would not do: it also
    decides how norms and projections run.
    """
    backends = dict(BACKENDS)
    values_only = Backend(
        _run_values_only,
        lambda *_: None,
        "the values at the queries' pixels",
        run_packed=_run_packed_values_only,
    )
    BACKENDS.clear()
    BACKENDS.update({VALUES_ONLY: values_only} | backends)
    try:
        yield
    finally:
        BACKENDS.clear()
        BACKENDS.update(backends)
