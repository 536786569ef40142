"""The fused kernel for CPUs: the C++ library of `csrc/`, called through ctypes, as an opaque PyTorch operator.

Windows are never written to memory: a thread copies the keys and values that one block sees into its cache, attends
there, and writes the result. The backward needs the inputs, the output and one log-sum-exp for each query and head.
Keys outside the image cost nothing with `border="mask"`. Gradients are summed in an order that does not depend on the
number of threads.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from halonet.ops import cpu_library
from halonet.ops.attention.geometry import Axis, Geometry
from halonet.ops.attention.packed import Packed
from halonet.ops.attention.registration import Inputs, Operator, PackedOperator, summed_in
from halonet.ops.tracing import is_exporting
from halonet.ops.transforms import is_transformed

_CHOSEN = "" if cpu_library.MISSING else f" ({cpu_library.instruction_set()})"
SUMMARY = "a fused C++ kernel" + _CHOSEN


def unsupported_reason(query: Tensor, key: Tensor, value: Tensor, geometry: Geometry) -> str | None:
    """Why the kernel cannot take a call, or None."""
    if query.device.type != "cpu":
        return f"it runs on the CPU, and the tensors are on {query.device}"
    if is_exporting():
        return "it is no part of an exported program"
    if is_transformed():
        return "it has no rules for the transforms of torch.func"
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
    """Attend in the C++ library."""
    return _OPERATOR(query, key, value, row_embedding, column_embedding, geometry=geometry, scale=scale)


def packed_attention(
    packed: Packed, row_embedding: Tensor | None, column_embedding: Tensor | None, *, geometry: Geometry, scale: float
) -> Tensor:
    """`halo_attention` whose gradients come packed."""
    tensor, query, *sizes = packed
    return _PACKED_OPERATOR(tensor, query, row_embedding, column_embedding, *sizes, geometry=geometry, scale=scale)


def _forward(inputs: Inputs, geometry: Geometry, scale: float, output: Tensor, log_sum: Tensor | None) -> None:
    dtype = summed_in(output.dtype)
    ready = _ready_inputs(inputs, dtype)
    result = output if output.dtype == dtype else torch.empty(output.shape, dtype=dtype)
    call = _call(ready, geometry, scale)
    call.output = _image(result)
    call.log_sum = None if log_sum is None else log_sum.data_ptr()
    cpu_library.run("halonet_run", call, dtype, backward=False)
    if result is not output:
        output.copy_(result)


def _backward(
    grad_output: Tensor,
    inputs: Inputs,
    output: Tensor,
    log_sum: Tensor,
    geometry: Geometry,
    scale: float,
    gradients: list[Tensor],
) -> tuple[Tensor, ...]:
    dtype = log_sum.dtype
    ready = _ready_inputs(inputs, dtype)
    grads = [each if each.dtype == dtype else torch.zeros(each.shape, dtype=dtype) for each in gradients]
    tables = [torch.zeros(() if table is None else table.shape, dtype=dtype) for table in inputs.tables]
    call = _call(ready, geometry, scale)
    output, grad_output = _ready(output, dtype), _ready(grad_output, dtype)
    call.output, call.grad_output = _image(output), _image(grad_output)
    call.grad_query, call.grad_key, call.grad_value = (_image(grad) for grad in grads)
    call.grad_row_table, call.grad_column_table = (grad.data_ptr() for grad in tables)
    call.log_sum = log_sum.data_ptr()
    cpu_library.run("halonet_run", call, dtype, backward=True)
    for gradient, grad in zip(gradients, grads, strict=True):
        if grad is not gradient:
            gradient.copy_(grad)
    return tuple(
        grad if table is None else grad.to(table.dtype) for grad, table in zip(tables, inputs.tables, strict=True)
    )


# Blocks add to their neighbors' keys.
_OPERATOR = Operator("cpu", _forward, _backward, ["CPU"], adds=True)
_PACKED_OPERATOR = PackedOperator("cpu", _forward, _backward, ["CPU"], adds=True)


def _call(inputs: Inputs, geometry: Geometry, scale: float) -> cpu_library.Call:
    query, key, value, row_embedding, column_embedding = inputs
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
    if row_embedding is not None and column_embedding is not None:
        call.row_table = cpu_library.Table(row_embedding.data_ptr(), row_embedding.shape[1])
        call.column_table = cpu_library.Table(column_embedding.data_ptr(), column_embedding.shape[1])
    return call


def _axis(axis: Axis) -> cpu_library.Axis:
    return cpu_library.Axis(
        axis.size, axis.block, axis.halo, axis.stride, axis.offset_stride, axis.num_queries, axis.num_blocks
    )


def _image(tensor: Tensor) -> cpu_library.Image:
    return cpu_library.Image(tensor.data_ptr(), *tensor.stride()[:4])


def _ready_inputs(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    tables = (None if table is None else table.to(dtype).contiguous() for table in inputs.tables)
    return Inputs(*(_ready(tensor, dtype) for tensor in inputs.images), *tables)


def _ready(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast, and copy where the channels of a head are not contiguous."""
    tensor = tensor.to(dtype)
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()
