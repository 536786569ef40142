"""The fused kernels for GPUs, in Triton, as an opaque PyTorch operator.

Neither windows nor scores are written to memory: a program reads tensors of any strides and holds the scores of a tile
of queries on chip. The backward needs the inputs, the output and one log-sum-exp for each query and head. Each gradient
is written once, and those of the tables are summed from parts in a fixed order, so two runs give the same bits.

Triton itself is imported by the first call that needs it.
"""

import importlib.util
import os
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor

from halonet.ops.attention.geometry import Geometry, power_of_2
from halonet.ops.attention.packed import Packed, unpack
from halonet.ops.attention.registration import Inputs, Operator, PackedOperator
from halonet.ops.tracing import is_exporting
from halonet.ops.transforms import is_transformed

SUMMARY = "fused Triton kernels"
MOST_CHANNELS = 256
LONGEST_TABLE = 256
LEAST_CAPABILITY = 8
# The mask of the kernels is a large number times the scale: scales beyond these go into the query.
LEAST_SCALE, LARGEST_SCALE = 1e-6, 1e6


def unsupported_reason(query: Tensor, key: Tensor, value: Tensor, geometry: Geometry) -> str | None:
    """Why the kernels cannot take a call, or None."""
    if is_exporting():
        return "it is no part of an exported program"
    if is_transformed():
        return "it has no rules for the transforms of torch.func"
    widest = max(query.shape[4], value.shape[4])
    if widest > MOST_CHANNELS:
        return f"it takes heads of at most {MOST_CHANNELS} channels, not {widest}"
    longest = max(geometry.rows.table_length, geometry.columns.table_length)
    if longest > LONGEST_TABLE:
        return f"it takes 2 * (block + halo) - 1 up to {LONGEST_TABLE}, not {longest}"
    missing = _missing(query.device.type, query.device.index or 0)
    if missing or query.device.type == "cpu":
        return missing
    needed, there = _shared_bytes(query, value, geometry), _shared_bytes_of(query.device.index or 0)
    if needed > there:
        return (
            f"its tiles take up to {needed // 1024} KiB of a multiprocessor's memory, and this GPU has {there // 1024}"
        )
    return None


def _shared_bytes(query: Tensor, value: Tensor, geometry: Geometry) -> int:
    """Upper bound of a program's shared memory: both tables in two parts, 64 queries and keys, 64 queries' logits."""
    wide, value_wide = power_of_2(query.shape[4]), power_of_2(value.shape[4])
    axes = (geometry.rows, geometry.columns)
    tables = 2 * sum(power_of_2(axis.table_length) for axis in axes) * wide
    slots = 64 * 2 * max(power_of_2(axis.window) for axis in axes)
    return query.dtype.itemsize * (tables + 2 * 64 * (wide + value_wide) + slots)


@torch.compiler.assume_constant_result
def _shared_bytes_of(index: int) -> int:
    properties = torch.cuda.get_device_properties(index)
    return getattr(properties, "shared_memory_per_block_optin", 0) or 64 * 1024


@torch.compiler.assume_constant_result
def _missing(device: str, index: int) -> str | None:
    """Why the kernels cannot run on a device, or None."""
    if device != "cuda" and not (device == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"):
        return f"it runs on CUDA and ROCm devices, and the tensors are on {device}"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if device == "cuda" and not torch.version.hip:
        major, minor = torch.cuda.get_device_capability(index)
        if major < LEAST_CAPABILITY:
            return f"it needs compute capability {LEAST_CAPABILITY}.0 or more, and this device has {major}.{minor}"
    return None


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
    """Attend in Triton, with scales that the kernels take."""
    if scale < 0:
        query, scale = -query, -scale
    if not LEAST_SCALE <= scale <= LARGEST_SCALE:
        query, scale = query * scale, 1.0
    return _OPERATOR(query, key, value, row_embedding, column_embedding, geometry=geometry, scale=scale)


def packed_attention(
    packed: Packed, row_embedding: Tensor | None, column_embedding: Tensor | None, *, geometry: Geometry, scale: float
) -> Tensor:
    """`halo_attention` whose gradients come packed."""
    if not LEAST_SCALE <= scale <= LARGEST_SCALE:
        return halo_attention(*unpack(packed), row_embedding, column_embedding, geometry=geometry, scale=scale)
    tensor, query, *sizes = packed
    return _PACKED_OPERATOR(tensor, query, row_embedding, column_embedding, *sizes, geometry=geometry, scale=scale)


def _forward(inputs: Inputs, geometry: Geometry, scale: float, output: Tensor, log_sum: Tensor | None) -> None:
    from halonet.ops.attention.triton.launch import forward_launch

    with _device_of(output):
        forward_launch(inputs, geometry, scale, output, log_sum).run()


def _backward(
    grad_output: Tensor,
    inputs: Inputs,
    output: Tensor,
    log_sum: Tensor,
    geometry: Geometry,
    scale: float,
    gradients: list[Tensor],
) -> tuple[Tensor, ...]:
    from halonet.ops.attention.triton.launch import launch_for_keys, launch_for_queries

    grad_query, grad_key, grad_value = gradients
    with _device_of(output):
        of_queries, parts, delta = launch_for_queries(grad_output, inputs, output, log_sum, geometry, scale, grad_query)
        of_queries.run()
        launch_for_keys(grad_output, inputs, log_sum, delta, geometry, scale, grad_key, grad_value).run()
    return tuple(
        part.sum(0, dtype=torch.float64).to(part.dtype if table is None else table.dtype)
        for part, table in zip(parts, inputs.tables, strict=True)
    )


_OPERATOR = Operator("triton", _forward, _backward, ["CUDA", "CPU"])
_PACKED_OPERATOR = PackedOperator("triton", _forward, _backward, ["CUDA", "CPU"])


def _device_of(tensor: Tensor) -> AbstractContextManager[object]:
    return torch.cuda.device(tensor.device) if tensor.device.type == "cuda" else nullcontext()
