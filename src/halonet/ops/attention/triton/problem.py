"""What a Triton kernel is told: the tensors, the image's size, and the numbers that it is compiled for."""

import math
from functools import cache
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from halonet.ops.attention.geometry import Axis, Geometry, power_of_2
from halonet.ops.attention.registration import Inputs


class Image(NamedTuple):
    """A tensor [batch, rows, columns, heads, channels] and its strides, in elements."""

    data: Any
    strides: tuple[int, ...]


class Extent(NamedTuple):
    """What an image's size decides along one axis; see `geometry.Axis`."""

    size: int
    num_queries: int
    num_blocks: int


class TileAxis(NamedTuple):
    """What a kernel is compiled for along one axis; the first five as in `geometry.Axis`.

    Attributes:
        block: The paper's b.
        halo: The paper's h.
        stride: Pixels between queries.
        offset_stride: Pixels that a query counts for in the offsets.
        window: b + 2h.
        max_queries: The most queries that a block holds.
        table_length: Entries of the table.
        entries: The next power of 2 of the longer axis.
        table_width: Channels of the table; 0 without one. Rows read a query's first channels, columns its last.
    """

    block: int
    halo: int
    stride: int
    offset_stride: int
    window: int
    max_queries: int
    table_length: int
    entries: int
    table_width: int


class Problem(NamedTuple):
    """What a kernel is compiled for.

    Attributes:
        heads: Heads.
        rows: The vertical axis.
        columns: The horizontal axis.
        channels: The paper's d_qk.
        padded_channels: The next power of 2, at least 16.
        value_channels: The paper's d_v.
        padded_value_channels: The next power of 2, at least 16.
        zeros: Whether keys outside the image take weight.
        centered: Whether each query sees only its own window.
        has_tables: Whether there are relative positions.
        split: Whether the heads are wide and the two tables read different channels, whose gradients then lie together.
        scale: Factor of the logits, positive.
        unit: The scale times log2(e): exponentials and logarithms are to base 2.
        hidden: Logit of what may not be seen, before the scale, in units of `one`.
        one: The ones of the matrices of ones. In fp16 they are larger than 1 so that `hidden` times `one` is beyond
            every logit, though fp16 cannot hold it.
        precision: Of products of fp32, as `tl.dot` takes it.
        accumulator: fp32, or fp64 for fp64.
        sums: Columns of the totals of weights: 8, the least of a product, where products add them up, or 1.
        offset: Integer that counts numbers in memory within a window: 64 bits for enormous strides.
    """

    heads: int
    rows: TileAxis
    columns: TileAxis
    channels: int
    padded_channels: int
    value_channels: int
    padded_value_channels: int
    zeros: bool
    centered: bool
    has_tables: bool
    split: bool
    scale: float
    unit: float
    hidden: float
    one: float
    precision: str
    accumulator: Any
    sums: int
    offset: Any


class Tile(NamedTuple):
    """Sizes of the tiles of one kernel; `queries` and the products of rows and columns are powers of 2, at least 16.

    Attributes:
        queries: Queries of a block at a time.
        key_rows: Rows of keys at a time.
        key_columns: Columns of keys at a time.
        slots: As many as the rows, or the columns, of all key tiles; a power of 2.
        tiles_across: Key tiles beside each other in a window.
    """

    queries: int
    key_rows: int
    key_columns: int
    slots: int
    tiles_across: int


def make_problem(inputs: Inputs, geometry: Geometry, scale: float, *others: Tensor) -> Problem:
    """Derive what the kernels are compiled for from a call, `others` being tensors of any strides beside the inputs."""
    query, key, value, row_embedding, column_embedding = inputs
    return _make_problem(
        geometry,
        scale,
        query.dtype,
        query.shape[3:],
        value.shape[4],
        tuple(0 if table is None else table.shape[1] for table in (row_embedding, column_embedding)),
        max(_reach(tensor, geometry) for tensor in (query, key, value, *others)) >= 2**31,
        torch.backends.cuda.matmul.fp32_precision == "tf32",
    )


@cache
def _make_problem(
    geometry: Geometry,
    scale: float,
    dtype: torch.dtype,
    heads_and_channels: tuple[int, int],
    value_channels: int,
    table_widths: tuple[int, int],
    far: bool,
    tf32: bool,
) -> Problem:
    heads, channels = heads_and_channels
    entries = power_of_2(max(geometry.rows.table_length, geometry.columns.table_length))
    fp16, hip = dtype == torch.float16, torch.version.hip is not None
    return Problem(
        heads=heads,
        rows=_tile_axis(geometry.rows, table_widths[0], entries),
        columns=_tile_axis(geometry.columns, table_widths[1], entries),
        channels=channels,
        padded_channels=power_of_2(channels),
        value_channels=value_channels,
        padded_value_channels=power_of_2(value_channels),
        zeros=geometry.border == "zeros",
        centered=geometry.centered,
        has_tables=table_widths != (0, 0),
        split=channels > 32 and sum(table_widths) <= channels,
        scale=scale,
        unit=scale * math.log2(math.e),
        hidden=-6e4 if fp16 else -1e30,
        one=1024.0 if fp16 else 1.0,
        # AMD's compiler refuses the word on most cards, and products of so few columns.
        precision="tf32" if tf32 and dtype == torch.float32 and not hip else "ieee",
        accumulator=tl.float64 if dtype == torch.float64 else tl.float32,
        sums=8 if dtype.itemsize == 2 and not hip else 1,
        offset=tl.int64 if far else tl.int32,
    )


def _reach(tensor: Tensor, geometry: Geometry) -> int:
    """How many numbers lie, at most, between two of the same head in a window."""
    _, rows, columns, _, channels = tensor.stride()
    return geometry.rows.window * rows + geometry.columns.window * columns + tensor.shape[4] * channels


def _tile_axis(axis: Axis, table_width: int, entries: int) -> TileAxis:
    return TileAxis(
        block=axis.block,
        halo=axis.halo,
        stride=axis.stride,
        offset_stride=axis.offset_stride,
        window=axis.window,
        max_queries=-(-axis.block // axis.stride),
        table_length=axis.table_length,
        entries=entries,
        table_width=table_width,
    )
