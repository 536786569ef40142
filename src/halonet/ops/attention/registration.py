"""Register fused kernels as opaque PyTorch operators: schemas, fake kernels, derivatives.

A backend that is not plain PyTorch brings a forward and a backward function; what all such backends share is here. The
operators are `torch.ops.halonet.NAME_attention` and `NAME_packed_attention`, each with its `_backward`. They take the
integers of the geometry as a list, because an operator's arguments are tensors and plain values.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.flop_counter import register_flop_formula

from halonet.ops.attention import flops
from halonet.ops.attention.geometry import Geometry, clip, make_geometry
from halonet.ops.attention.packed import Packed, unpack
from halonet.ops.transforms import is_traced

_NUMBERS_OF_AN_AXIS = ("block", "halo", "stride", "offset_stride")
_OPERATORS = torch.library.Library("halonet", "FRAGMENT")


class Inputs(NamedTuple):
    """The tensors of a call, as `halonet.halo_attention` takes them."""

    query: Tensor
    key: Tensor
    value: Tensor
    row_embedding: Tensor | None
    column_embedding: Tensor | None

    @property
    def images(self) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value."""
        return self.query, self.key, self.value

    @property
    def tables(self) -> tuple[Tensor | None, Tensor | None]:
        """The embeddings of rows and columns."""
        return self.row_embedding, self.column_embedding


# Fills the output and, if given, the base-2 log-sum-exp [batch, Hq, Wq, heads] of the logits:
# (inputs, geometry, scale, output, log_sum).
Forward = Callable[[Inputs, Geometry, float, Tensor, Tensor | None], None]
# Fills the gradients of query, key and value, which may be slices of one tensor, or adds to them if the operator says
# `adds`; returns those of the tables in their dtypes, and any tensor for a table that is None:
# (grad_output, inputs, output, log_sum, geometry, scale, gradients).
Backward = Callable[[Tensor, Inputs, Tensor, Tensor, Geometry, float, list[Tensor]], tuple[Tensor, ...]]


class Operator:
    """A registered kernel for queries, keys and values in tensors of their own.

    Args:
        name: The backend's name.
        run_forward: Never called with an empty batch.
        run_backward: Likewise.
        devices: Dispatch keys it runs under, as "CPU" or "CUDA".
        adds: Whether the backward adds to gradients that must be zeros, instead of filling them.
    """

    kind = "attention"
    images = "Tensor query, Tensor key, Tensor value"
    num_images = 3
    sizes = ""
    flops: tuple[Callable[..., int], Callable[..., int]] = (flops.forward_flops, flops.backward_flops)

    def __init__(
        self, name: str, run_forward: Forward, run_backward: Backward, devices: Sequence[str], *, adds: bool = False
    ) -> None:
        self.name, self.run_forward, self.run_backward, self.adds = name, run_forward, run_backward, adds
        self.forward_name = forward = f"{name}_{self.kind}"
        backward = f"{forward}_backward"
        tensors = f"{self.images}, Tensor? row_embedding, Tensor? column_embedding{self.sizes}"
        numbers = "int[] numbers, float scale"
        gradients = ", ".join(["Tensor"] * (self.num_images + 2))
        _OPERATORS.define(f"{forward}({tensors}, {numbers}, bool save) -> (Tensor output, Tensor log_sum)")
        _OPERATORS.define(
            f"{backward}(Tensor grad_output, {tensors}, Tensor output, Tensor log_sum, {numbers}) -> ({gradients})"
        )
        for device in devices:
            _OPERATORS.impl(forward, self._forward, device)
            _OPERATORS.impl(backward, self._backward, device)
        torch.library.register_fake(f"halonet::{forward}", self._empty, lib=_OPERATORS)
        torch.library.register_fake(f"halonet::{backward}", self._empty_gradients, lib=_OPERATORS)
        torch.library.register_autograd(
            f"halonet::{forward}", self._differentiate, setup_context=self._remember, lib=_OPERATORS
        )
        torch.library.register_autograd(f"halonet::{backward}", self._refuse_second_derivative, lib=_OPERATORS)
        for operator, formula in zip((forward, backward), self.flops, strict=True):
            register_flop_formula(getattr(torch.ops.halonet, operator))(formula)

    def __call__(self, *given: Tensor | int | None, geometry: Geometry, scale: float) -> Tensor:
        """Attend, with checked tensors in the order of the schema.

        Raises:
            NotImplementedError: If forward-mode derivatives are wanted.
        """
        if forward_ad._current_level >= 0 and any(
            isinstance(each, Tensor) and forward_ad.unpack_dual(each).tangent is not None for each in given
        ):
            raise NotImplementedError(f"backend {self.name!r} has no forward-mode derivatives; backend='reference' has")
        save = torch.is_grad_enabled() and any(isinstance(each, Tensor) and each.requires_grad for each in given)
        save = save or is_traced()  # the traced program must run with gradients and without
        operator = getattr(torch.ops.halonet, self.forward_name)
        output, _ = operator(*given, _numbers_of(geometry), scale, save)
        return output

    def _inputs(self, *given: Any) -> Inputs:
        return Inputs(*given)

    def _allocate(self, *given: Any) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Allocate the gradients of the images; return them, and their views as query, key and value."""
        memory = tuple(each.new_empty(each.shape) for each in given[: self.num_images])
        return memory, memory

    def _forward(self, *arguments: Any) -> tuple[Tensor, Tensor]:
        *given, numbers, scale, save = arguments
        inputs = self._inputs(*given)
        output, log_sum = _empty(inputs, save)
        if output.numel():
            self.run_forward(inputs, _geometry(numbers, inputs), scale, output, log_sum if save else None)
        return output, log_sum

    def _backward(self, *arguments: Any) -> tuple[Tensor, ...]:
        grad_output, *given, output, log_sum, numbers, scale = arguments
        if not output.numel():
            return tuple(gradient.zero_() for gradient in self._empty_gradients(*arguments))
        inputs = self._inputs(*given)
        memory, gradients = self._allocate(*given)
        if self.adds:
            for each in memory:
                each.zero_()
        geometry = _geometry(numbers, inputs)
        tables = self.run_backward(grad_output, inputs, output, log_sum, geometry, scale, list(gradients))
        return *memory, *tables

    def _empty(self, *arguments: Any) -> tuple[Tensor, Tensor]:
        *given, _, _, save = arguments
        return _empty(self._inputs(*given), save)

    def _empty_gradients(self, *arguments: Any) -> tuple[Tensor, ...]:
        _, *given, _, log_sum, _, _ = arguments
        memory, _ = self._allocate(*given)
        tables = given[self.num_images : self.num_images + 2]
        tables = (log_sum.new_empty(()) if table is None else table for table in tables)
        return *memory, *(each.new_empty(each.shape) for each in tables)

    def _remember(self, ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *given, ctx.numbers, ctx.scale, _ = inputs
        tensors, ctx.sizes = given[: self.num_images + 2], given[self.num_images + 2 :]
        ctx.save_for_backward(*tensors, *output)
        ctx.mark_non_differentiable(output[1])

    def _differentiate(self, ctx: Any, grad_output: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, output, log_sum = ctx.saved_tensors  # read once: activation checkpointing recomputes them
        operator = getattr(torch.ops.halonet, f"{self.forward_name}_backward")
        gradients = operator(grad_output, *tensors, *ctx.sizes, output, log_sum, ctx.numbers, ctx.scale)
        gradients = (None if each is None else grad for each, grad in zip(tensors, gradients, strict=True))
        return *gradients, *(None for _ in ctx.sizes), None, None, None

    def _refuse_second_derivative(self, ctx: Any, *grads: Tensor) -> None:
        raise NotImplementedError(
            f"backend {self.name!r} has first derivatives only; backend='reference' differentiates twice"
        )


class PackedOperator(Operator):
    """The same kernel for a `Packed`, whose gradient is packed too."""

    kind = "packed_attention"
    images = "Tensor packed, Tensor? query"
    num_images = 2
    sizes = ", int num_heads, int key_channels, int value_channels"
    flops = (flops.packed_forward_flops, flops.packed_backward_flops)

    def _inputs(self, *given: Any) -> Inputs:
        tensor, query, row_embedding, column_embedding, *sizes = given
        return Inputs(*unpack(Packed(tensor, query, *sizes)), row_embedding, column_embedding)

    def _allocate(self, *given: Any) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        tensor, query, _, _, *sizes = given
        packed = tensor.new_empty(tensor.shape)
        if query is None:
            return (packed, tensor.new_empty(0)), unpack(Packed(packed, None, *sizes))
        of_query = query.new_empty(query.shape)
        return (packed, of_query), unpack(Packed(packed, of_query, *sizes))


def _empty(inputs: Inputs, save: bool) -> tuple[Tensor, Tensor]:
    grid = inputs.query.shape[:4]
    log_sum = inputs.query.new_empty(grid if save else (0,), dtype=summed_in(inputs.query.dtype))
    return inputs.query.new_empty(*grid, inputs.value.shape[4]), log_sum


def summed_in(dtype: torch.dtype) -> torch.dtype:
    """The dtype of softmax and sums: fp32, or fp64 for fp64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _numbers_of(geometry: Geometry) -> list[int]:
    """A geometry without the sizes of the image, as the operators take it."""
    return [
        *(getattr(axis, name) for name in _NUMBERS_OF_AN_AXIS for axis in (geometry.rows, geometry.columns)),
        int(geometry.border == "zeros"),
        int(geometry.centered),
    ]


def _geometry(numbers: Sequence[int], inputs: Inputs) -> Geometry:
    # A program compiled for all sizes of the image could not clip.
    return _make_geometry(tuple(numbers), *inputs.key.shape[1:3], inputs.row_embedding is None)


@lru_cache(maxsize=1024)
def _make_geometry(numbers: tuple[int, ...], height: int, width: int, clipped: bool) -> Geometry:
    *sizes, zeros, centered = numbers
    block, halo, stride, offset_stride = zip(sizes[::2], sizes[1::2], strict=True)
    geometry = make_geometry(
        height, width, block_size=block, halo_size=halo, stride=stride, offset_stride=offset_stride,
        border="zeros" if zeros else "mask", centered=bool(centered),
    )  # fmt: skip
    return clip(geometry) if clipped else geometry
