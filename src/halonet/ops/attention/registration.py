"""Makes a fused kernel an opaque PyTorch operator: its schema, what it returns while tracing, its derivative.

Every backend that is no plain PyTorch brings two functions, forward and backward, and gets here what they have in
common. The operators are `torch.ops.halonet.NAME_attention` and `NAME_attention_backward`; they take the integers of
the geometry as a list, for an operator's arguments are tensors and plain values.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.flop_counter import register_flop_formula

from halonet.ops.attention import gradients
from halonet.ops.attention.flops import backward_flops, forward_flops
from halonet.ops.attention.geometry import Geometry, clip, make_geometry
from halonet.ops.transforms import is_traced

_NUMBERS_OF_AN_AXIS = ("block", "halo", "stride", "offset_stride")
_ARGUMENTS = "Tensor query, Tensor key, Tensor value, Tensor? row_embedding, Tensor? column_embedding"
_NUMBERS = "int[] numbers, float scale"
_OPERATORS = torch.library.Library("halonet", "FRAGMENT")


class Inputs(NamedTuple):
    """The tensors of a call, as `halonet.halo_attention` takes them."""

    query: Tensor
    key: Tensor
    value: Tensor
    row_embedding: Tensor | None
    column_embedding: Tensor | None


# Fills the output and, where it is wanted, the base-2 log-sum-exp [batch, Hq, Wq, heads] of the logits:
# (inputs, geometry, scale, output, log_sum).
Forward = Callable[[Inputs, Geometry, float, Tensor, Tensor | None], None]
# Fills gradients of query, key and value, which may be slices of one tensor, or adds to zeros where the operator says
# so; gives those of the tables in their dtypes, of a table that is None anything:
# (grad_output, inputs, output, log_sum, geometry, scale, gradients).
Backward = Callable[[Tensor, Inputs, Tensor, Tensor, Geometry, float, list[Tensor]], tuple[Tensor, ...]]


class Operator:
    """A registered kernel.

    Args:
        name: The backend's name.
        run_forward: Computes; it never sees an empty batch.
        run_backward: Differentiates; nor does it.
        devices: Dispatch keys it runs under, as "CPU" or "CUDA".
        adds: Whether the backward adds to gradients that must be zeros, and does not fill them.
    """

    def __init__(
        self, name: str, run_forward: Forward, run_backward: Backward, devices: Sequence[str], *, adds: bool = False
    ) -> None:
        self.name, self.run_forward, self.run_backward, self.adds = name, run_forward, run_backward, adds
        forward, backward = f"{name}_attention", f"{name}_attention_backward"
        _OPERATORS.define(f"{forward}({_ARGUMENTS}, {_NUMBERS}, bool save) -> (Tensor output, Tensor log_sum)")
        _OPERATORS.define(
            f"{backward}(Tensor grad_output, {_ARGUMENTS}, Tensor output, Tensor log_sum, {_NUMBERS},"
            " int joined) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
        )
        for device in devices:
            _OPERATORS.impl(forward, self._forward, device)
            _OPERATORS.impl(backward, self._backward, device)
        torch.library.register_fake(f"halonet::{forward}", _empty, lib=_OPERATORS)
        torch.library.register_fake(f"halonet::{backward}", _empty_gradients, lib=_OPERATORS)
        torch.library.register_autograd(
            f"halonet::{forward}", self._differentiate, setup_context=_remember, lib=_OPERATORS
        )
        torch.library.register_autograd(f"halonet::{backward}", self._refuse_second_derivative, lib=_OPERATORS)
        register_flop_formula(getattr(torch.ops.halonet, forward))(forward_flops)
        register_flop_formula(getattr(torch.ops.halonet, backward))(backward_flops)

    def __call__(self, *tensors: Tensor | None, geometry: Geometry, scale: float) -> Tensor:
        """Attend: the tensors of `Inputs` in their order, checked.

        Raises:
            NotImplementedError: If forward-mode derivatives are wanted.
        """
        if forward_ad._current_level >= 0 and any(
            each is not None and forward_ad.unpack_dual(each).tangent is not None for each in tensors
        ):
            raise NotImplementedError(f"backend {self.name!r} has no forward-mode derivatives; backend='reference' has")
        save = torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in tensors)
        save = save or is_traced()  # the traced program must serve with gradients and without
        operator = getattr(torch.ops.halonet, f"{self.name}_attention")
        return operator(*tensors, _numbers_of(geometry), scale, save)[0]

    def _forward(self, *arguments: Any) -> tuple[Tensor, Tensor]:
        *tensors, numbers, scale, save = arguments
        output, log_sum = _empty(*arguments)
        if output.numel():
            inputs = Inputs(*tensors)
            self.run_forward(inputs, _geometry(numbers, inputs), scale, output, log_sum if save else None)
        return output, log_sum

    def _backward(self, *arguments: Any) -> tuple[Tensor, ...]:
        grad_output, *tensors, output, log_sum, numbers, scale, joined = arguments
        inputs = Inputs(*tensors)
        if not output.numel():
            return tuple(gradient.zero_() for gradient in _empty_gradients(*arguments))
        memory = gradients.allocate(joined, *inputs[:3])
        if self.adds:
            for each in memory:
                each.zero_()
        tables = self.run_backward(
            grad_output,
            inputs,
            output,
            log_sum,
            _geometry(numbers, inputs),
            scale,
            gradients.parts(joined, memory, inputs[:3]),
        )
        return *memory, *tables

    def _differentiate(self, ctx: Any, grad_output: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # read once: activation checkpointing recomputes them
        operator = getattr(torch.ops.halonet, f"{self.name}_attention_backward")
        joined = gradients.count_joined(*saved[:3])
        *memory, row, column = operator(grad_output, *saved, ctx.numbers, ctx.scale, joined)
        tables = (None if table is None else grad for table, grad in zip(saved[3:5], (row, column), strict=True))
        return *gradients.parts(joined, tuple(memory), saved[:3]), *tables, None, None, None

    def _refuse_second_derivative(self, ctx: Any, *grads: Tensor) -> None:
        raise NotImplementedError(
            f"backend {self.name!r} has first derivatives only; backend='reference' differentiates twice"
        )


def summed_in(dtype: torch.dtype) -> torch.dtype:
    """The dtype of softmax and sums: fp32, or fp64 for fp64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _numbers_of(geometry: Geometry) -> list[int]:
    """The geometry but for the sizes of the image, as the operators take it."""
    return [
        *(getattr(axis, name) for name in _NUMBERS_OF_AN_AXIS for axis in (geometry.rows, geometry.columns)),
        int(geometry.border == "zeros"),
        int(geometry.centered),
    ]


def _geometry(numbers: Sequence[int], inputs: Inputs) -> Geometry:
    # Clipped before, but for a compiled program that is for all sizes of the image.
    return _make_geometry(tuple(numbers), *inputs.key.shape[1:3], inputs.row_embedding is None)


@lru_cache(maxsize=1024)
def _make_geometry(numbers: tuple[int, ...], height: int, width: int, clipped: bool) -> Geometry:
    block, halo, stride, offset_stride = ((numbers[i], numbers[i + 1]) for i in (0, 2, 4, 6))
    geometry = make_geometry(
        height,
        width,
        block_size=block,
        halo_size=halo,
        stride=stride,
        offset_stride=offset_stride,
        border="zeros" if numbers[8] else "mask",
        centered=bool(numbers[9]),
    )
    return clip(geometry) if clipped else geometry


def _empty(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    row_embedding: Tensor | None,
    column_embedding: Tensor | None,
    numbers: Sequence[int],
    scale: float,
    save: bool,
) -> tuple[Tensor, Tensor]:
    grid = query.shape[:4]
    log_sum = query.new_empty(grid if save else (0,), dtype=summed_in(query.dtype))
    return query.new_empty(*grid, value.shape[4]), log_sum


def _empty_gradients(
    grad_output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    row_embedding: Tensor | None,
    column_embedding: Tensor | None,
    output: Tensor,
    log_sum: Tensor,
    numbers: Sequence[int],
    scale: float,
    joined: int,
) -> tuple[Tensor, ...]:
    tables = (log_sum.new_empty(()) if table is None else table for table in (row_embedding, column_embedding))
    memory = gradients.allocate(joined, query, key, value)
    return *memory, *(each.new_empty(each.shape) for each in tables)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.numbers, ctx.scale, _ = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])
