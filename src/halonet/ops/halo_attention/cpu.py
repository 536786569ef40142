"""The fused kernel for CPUs: the C++ library of `csrc/`, called through ctypes, as an opaque PyTorch operator.

Windows are never written to memory: a thread copies the keys and values that one block sees into its cache, attends
there, and writes the result. What the backward needs is the inputs, the output and one log-sum-exp for each query and
head. Keys outside the image cost nothing with `border="mask"`. Gradients are summed in an order that does not depend
on the number of threads.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad

from halonet.ops import cpu_library
from halonet.ops.halo_attention.geometry import Axis, Geometry, make_geometry

# For people.
_CHOSEN = "" if cpu_library.MISSING else f" ({cpu_library.instruction_set()})"
SUMMARY = "a fused C++ kernel" + _CHOSEN
_NUMBERS_OF_AN_AXIS = ("block", "halo", "stride", "offset_stride")


def refusal(query: Tensor, key: Tensor, value: Tensor, geometry: Geometry) -> str | None:
    """Why the kernel cannot take a call, or None."""
    if query.device.type != "cpu":
        return f"it runs on the CPU, and the tensors are on {query.device}"
    if torch.compiler.is_exporting():
        return "it is no part of an exported program"
    return cpu_library.MISSING


def halo_attention(
    query: Float[Tensor, "batch query_rows query_columns heads d_qk"],
    key: Float[Tensor, "batch rows columns heads d_qk"],
    value: Float[Tensor, "batch rows columns heads d_v"],
    row_embedding: Float[Tensor, "row_offsets w_r"] | None,
    column_embedding: Float[Tensor, "column_offsets w_c"] | None,
    *,
    geometry: Geometry,
    scale: float,
) -> Float[Tensor, "batch query_rows query_columns heads d_v"]:
    """Attend in the C++ library, as the module docstring says."""
    numbers = [
        *(getattr(axis, name) for name in _NUMBERS_OF_AN_AXIS for axis in (geometry.rows, geometry.columns)),
        int(geometry.border == "zeros"),
        int(geometry.centered),
    ]
    given = (query, key, value, row_embedding, column_embedding)
    if forward_ad._current_level >= 0 and any(
        each is not None and forward_ad.unpack_dual(each).tangent is not None for each in given
    ):
        raise NotImplementedError("backend 'cpu' has no forward-mode derivatives; backend='reference' has")
    save = torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in given)
    return torch.ops.halonet.cpu_attention(*given, numbers, scale, save)[0]


def _call(
    numbers: Sequence[int], scale: float, tensors: Sequence[Tensor], tables: Sequence[Tensor | None]
) -> cpu_library.Call:
    query, key, value = tensors
    geometry = _geometry(numbers, key)
    call = cpu_library.Call(
        rows=_axis(geometry.rows),
        columns=_axis(geometry.columns),
        batch=query.shape[0],
        heads=query.shape[3],
        query_channels=query.shape[4],
        value_channels=value.shape[4],
        zeros=geometry.border == "zeros",
        centered=geometry.centered,
        threads=torch.get_num_threads(),
        scale=scale,
        query=_image(query),
        key=_image(key),
        value=_image(value),
    )
    if tables[0] is not None and tables[1] is not None:
        call.row_table = cpu_library.Table(tables[0].data_ptr(), tables[0].shape[1])
        call.column_table = cpu_library.Table(tables[1].data_ptr(), tables[1].shape[1])
    return call


def _geometry(numbers: Sequence[int], key: Tensor) -> Geometry:
    block, halo, stride, offset_stride = ((numbers[i], numbers[i + 1]) for i in (0, 2, 4, 6))
    return make_geometry(
        key.shape[1],
        key.shape[2],
        block_size=block,
        halo_size=halo,
        stride=stride,
        offset_stride=offset_stride,
        border="zeros" if numbers[8] else "mask",
        centered=bool(numbers[9]),
    )


def _axis(axis: Axis) -> cpu_library.Axis:
    return cpu_library.Axis(
        axis.size, axis.block, axis.halo, axis.stride, axis.offset_stride, axis.num_queries, axis.num_blocks
    )


def _image(tensor: Tensor) -> cpu_library.Image:
    return cpu_library.Image(tensor.data_ptr(), *tensor.stride()[:4])


def _ready(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast, and copy where the channels of a head are not contiguous."""
    tensor = tensor.to(dtype)
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def zeros_for_gradients(query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    """Make zeros for the gradients, to which blocks add; slices of one tensor, as projections make them, get slices."""
    if _are_neighbors(query, key) and _are_neighbors(key, value):
        return _slices(query, key, value)
    if _are_neighbors(key, value):
        return [*_slices(query), *_slices(key, value)]
    return [each.new_zeros(each.shape) for each in (query, key, value)]


def _are_neighbors(first: Tensor, second: Tensor) -> bool:
    end = first.data_ptr() + first.shape[3:].numel() * first.element_size()
    return (
        end == second.data_ptr()
        and first.shape[:3] == second.shape[:3]
        and first.stride()[:3] == second.stride()[:3]
        and first.stride(3) == first.shape[4]
    )


def _slices(*tensors: Tensor) -> list[Tensor]:
    """Make one tensor of zeros whose slices along its last axis have the shapes of `tensors`."""
    widths = [each.shape[3:].numel() for each in tensors]
    whole = tensors[0].new_zeros(*tensors[0].shape[:3], sum(widths))
    return [part.unflatten(-1, each.shape[3:]) for part, each in zip(whole.split(widths, -1), tensors, strict=True)]


def _ready_table(table: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if table is None else table.to(dtype).contiguous()


_ARGUMENTS = "Tensor query, Tensor key, Tensor value, Tensor? row_embedding, Tensor? column_embedding"
_NUMBERS = "int[] numbers, float scale"
_OPERATORS = torch.library.Library("halonet", "FRAGMENT")
_OPERATORS.define(f"cpu_attention({_ARGUMENTS}, {_NUMBERS}, bool save) -> (Tensor output, Tensor log_sum)")
_OPERATORS.define(
    f"cpu_attention_backward(Tensor grad_output, {_ARGUMENTS}, Tensor output, Tensor log_sum, {_NUMBERS})"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)


@torch.library.impl(_OPERATORS, "cpu_attention", "CPU")
def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    row_embedding: Tensor | None,
    column_embedding: Tensor | None,
    numbers: Sequence[int],
    scale: float,
    save: bool,
) -> tuple[Tensor, Tensor]:
    output, log_sum = _empty(query, key, value, row_embedding, column_embedding, numbers, scale, save)
    dtype = log_sum.dtype
    result = output if output.dtype == dtype else torch.empty(output.shape, dtype=dtype)
    if output.numel():
        tensors = [_ready(tensor, dtype) for tensor in (query, key, value)]
        tables = [_ready_table(table, dtype) for table in (row_embedding, column_embedding)]
        call = _call(numbers, scale, tensors, tables)
        call.output = _image(result)
        call.log_sum = log_sum.data_ptr() if save else None
        cpu_library.run("halonet_run", call, dtype, backward=False)
    return result.to(output.dtype), log_sum


@torch.library.register_fake("halonet::cpu_attention", lib=_OPERATORS)
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
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    grid = query.shape[:4]
    return query.new_empty(*grid, value.shape[4]), query.new_empty(grid if save else (0,), dtype=dtype)


@torch.library.impl(_OPERATORS, "cpu_attention_backward", "CPU")
def _backward(
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dtype = log_sum.dtype
    given = (query, key, value, row_embedding, column_embedding)
    tensors = [_ready(tensor, dtype) for tensor in (query, key, value)]
    tables = [_ready_table(table, dtype) for table in (row_embedding, column_embedding)]
    grads = zeros_for_gradients(*tensors)
    grads += [torch.zeros(() if table is None else table.shape, dtype=dtype) for table in given[3:]]
    if grad_output.numel():
        call = _call(numbers, scale, tensors, tables)
        output, grad_output = _ready(output, dtype), _ready(grad_output, dtype)
        call.output, call.grad_output = _image(output), _image(grad_output)
        call.grad_query, call.grad_key, call.grad_value = (_image(grad) for grad in grads[:3])
        call.grad_row_table, call.grad_column_table = (grad.data_ptr() for grad in grads[3:])
        call.log_sum = log_sum.data_ptr()
        cpu_library.run("halonet_run", call, dtype, backward=True)
    query_grad, key_grad, value_grad, row_grad, column_grad = (
        grad if each is None else grad.to(each.dtype) for grad, each in zip(grads, given, strict=True)
    )
    return query_grad, key_grad, value_grad, row_grad, column_grad


@torch.library.register_fake("halonet::cpu_attention_backward", lib=_OPERATORS)
def _empty_backward(
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    query_grad, key_grad, value_grad = (each.new_empty(each.shape) for each in (query, key, value))
    row_grad, column_grad = (
        log_sum.new_empty(()) if each is None else each.new_empty(each.shape)
        for each in (row_embedding, column_embedding)
    )
    return query_grad, key_grad, value_grad, row_grad, column_grad


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.numbers, ctx.scale, _ = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, grad_output: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # read once: activation checkpointing recomputes them
    grads = torch.ops.halonet.cpu_attention_backward(grad_output, *saved, ctx.numbers, ctx.scale)
    tables = (None if table is None else grad for table, grad in zip(saved[3:5], grads[3:], strict=True))
    return *grads[:3], *tables, None, None, None


def _refuse_second_derivative(ctx: Any, *grads: Tensor) -> None:
    raise NotImplementedError("backend 'cpu' has first derivatives only; backend='reference' differentiates twice")


torch.library.register_autograd("halonet::cpu_attention", _differentiate, setup_context=_remember, lib=_OPERATORS)
torch.library.register_autograd("halonet::cpu_attention_backward", _refuse_second_derivative, lib=_OPERATORS)
