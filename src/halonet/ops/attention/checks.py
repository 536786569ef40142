"""Checks of the tensors of a call; `geometry` checks its integers."""

import torch
from torch import Tensor

from halonet.errors import UserError
from halonet.ops.attention.geometry import Geometry

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_layout(**tensors: Tensor) -> None:
    """Check that each is a tensor of five axes."""
    for name, tensor in tensors.items():
        _check_type(name, tensor)
        if tensor.dim() != 5:
            layout = "[batch, rows, columns, heads, channels]"
            raise UserError(f"{name} has shape {_shape(tensor)}, but must have five axes {layout}")


def check_inputs(
    query: Tensor,
    key: Tensor,
    value: Tensor | None,
    row_embedding: Tensor | None,
    column_embedding: Tensor | None,
    geometry: Geometry,
) -> None:
    """Check that tensors with five axes fit one another and the geometry."""
    named = {"query": query, "key": key} | ({} if value is None else {"value": value})
    for name, tensor in named.items():
        if tensor.dtype not in DTYPES:
            raise UserError(f"{name} is {tensor.dtype}, but must be float64, float32, bfloat16 or float16")
        if tensor.dtype != query.dtype:
            raise UserError(f"{name} is {tensor.dtype} but query is {query.dtype}; they must share one dtype")
        _check_device(name, tensor, query)
    if value is not None and value.shape[:4] != key.shape[:4]:
        raise UserError(f"value has shape {_shape(value)} and key {_shape(key)}; batch, H, W and heads must be equal")
    rows, columns = geometry.rows, geometry.columns
    expected = (key.shape[0], rows.num_queries, columns.num_queries, key.shape[3], key.shape[4])
    if tuple(query.shape) != expected:
        strides = (rows.stride, columns.stride)
        raise UserError(
            f"query has shape {_shape(query)}; for a key of shape {_shape(key)} and stride {strides} it must be "
            f"[batch, ceil(H / stride), ceil(W / stride), heads, d_qk] = {list(expected)}"
        )
    if query.shape[3] < 1 or query.shape[4] < 1:
        raise UserError(f"query has shape {_shape(query)}; heads and d_qk must be at least 1")
    _check_tables(query, row_embedding, column_embedding, geometry)


def _check_tables(
    query: Tensor, row_embedding: Tensor | None, column_embedding: Tensor | None, geometry: Geometry
) -> None:
    if row_embedding is None and column_embedding is None:
        return
    if row_embedding is None or column_embedding is None:
        missing = "row_embedding" if row_embedding is None else "column_embedding"
        raise UserError(f"{missing} is None but the other table is given; pass both tables or none")
    tables = {
        "row_embedding": (row_embedding, geometry.rows),
        "column_embedding": (column_embedding, geometry.columns),
    }
    for name, (table, axis) in tables.items():
        _check_type(name, table)
        if table.dim() != 2 or table.shape[0] != axis.table_length:
            raise UserError(
                f"{name} has shape {_shape(table)}; with block {axis.block} and halo {axis.halo} it must be "
                f"[2 * (block + halo) - 1, width] = [{axis.table_length}, width]"
            )
        if table.dtype not in (query.dtype, torch.float32):
            raise UserError(f"{name} is {table.dtype}, but must be {query.dtype}, like query, or torch.float32")
        _check_device(name, table, query)
    widths, d_qk = (row_embedding.shape[1], column_embedding.shape[1]), query.shape[-1]
    if sum(widths) != d_qk and widths != (d_qk, d_qk):
        raise UserError(
            f"the tables are {widths[0]} and {widths[1]} channels wide; for heads of d_qk = {d_qk} channels the "
            f"widths must add up to {d_qk} (split) or both be {d_qk} (full)"
        )


def check_positions(positions: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """Check positions on the query grid; return their rows and columns."""
    _check_type("positions", positions)
    if positions.dim() != 2 or positions.shape[1] != 2 or positions.dtype not in INTEGERS:
        raise UserError(f"positions is {positions.dtype} {_shape(positions)}, but must be integers of shape [P, 2]")
    rows, columns = positions.to(query.device).long().unbind(1)
    height, width = query.shape[1], query.shape[2]
    outside = (rows < 0) | (rows >= height) | (columns < 0) | (columns >= width)
    if bool(outside.any()):
        first = positions[int(outside.nonzero()[0])].tolist()
        raise UserError(f"positions holds {first}, outside the query grid of {height} rows x {width} columns")
    return rows, columns


def _check_type(name: str, tensor: object) -> None:
    if not isinstance(tensor, Tensor):
        raise UserError(f"{name} is of type {type(tensor).__name__}, but must be a torch.Tensor")


def _check_device(name: str, tensor: Tensor, query: Tensor) -> None:
    if tensor.device != query.device:
        raise UserError(f"{name} is on {tensor.device} but query is on {query.device}; move them together")


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
