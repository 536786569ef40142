"""Halo attention in few plain operators, for export: looked-up windows, two matrix products and a softmax.

Where windows lie depends on the size of the map alone. `make_windows` computes it once, for all layers on a map. Keys
carry the one-hot codes of their row and column within the window, and queries their position logits and masks for each
row and column, so that one product gives whole logits, as in `composite`. Unlike there, windows are not shifted inward
at the border: what the tables say of a query's place in its block is then the same in all blocks, a constant.

The windows of all images, blocks and heads are one dimension, in this order, and no tensor has more than five: OpenVINO
reads wrong memory where it expands larger ones.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from halonet.ops.attention.geometry import Axis, Geometry

MASKED = -1e9  # two of them, of a row and a column, add up without overflow


class Windows(NamedTuple):
    """Where the blocks of a map lie: indices into its pixels times heads, row by row.

    Attributes:
        queries: Of the slots of all blocks and heads, row by row. A slot without a query repeats another.
        queries_by_column: Likewise, column by column.
        keys: Of the window of all blocks and heads; one past the end where `border="zeros"` has a zero.
        result: Of each query, among the slots of all blocks and heads.
        queried: The pixels that queries stand at; None if all do.
        row_tables: Of each window, which of the expanded row tables is its own; None if one is for all.
        column_tables: Likewise.
        shape: Images, blocks of a map, and heads; their product is the number of windows.
        slots: Rows and columns of slots in a block.
        codes: What the keys of each window carry: the one-hots of its rows and of its columns.
        masks: 0, or `MASKED`, for the rows and columns of a window that a slot does not see; None if all see all.
    """

    queries: Int[Tensor, " blocks_heads_slots"]
    queries_by_column: Int[Tensor, " blocks_heads_slots"]
    keys: Int[Tensor, " blocks_heads_window"]
    result: Int[Tensor, " queries_heads"]
    queried: Int[Tensor, " queries"] | None
    row_tables: Int[Tensor, " windows"] | None
    column_tables: Int[Tensor, " windows"] | None
    shape: tuple[int, int, int]
    slots: tuple[int, int]
    codes: Float[Tensor, "windows window codes"]
    masks: Float[Tensor, "blocks_or_1 1 slots_or_1 codes"] | None


class _AxisWindows(NamedTuple):
    blocks: int
    slots: int
    queries: Int[Tensor, "blocks slots"]
    block_of_query: Int[Tensor, " queries"]
    slot_of_query: Int[Tensor, " queries"]
    keys: Int[Tensor, "blocks window"]
    outside: Tensor
    masks: Float[Tensor, "_ _ window"] | None


def is_regular(geometry: Geometry) -> bool:
    """Whether the queries of all blocks stand at the same places in their block."""
    return _is_regular(geometry.rows) and _is_regular(geometry.columns)


def expand_tables(
    row_table: Float[Tensor, "row_offsets w_r"], column_table: Float[Tensor, "column_offsets w_c"], geometry: Geometry
) -> tuple[
    Float[Tensor, "block_rows_or_1 slot_rows w_r window_rows"],
    Float[Tensor, "block_columns_or_1 slot_columns w_c window_columns"],
]:
    """Look up the embeddings of the window of each slot; they do not depend on the map where `is_regular`."""
    rows, columns = _entries(geometry.rows, row_table.device), _entries(geometry.columns, column_table.device)
    return F.embedding(rows, row_table).mT, F.embedding(columns, column_table).mT


def make_windows(geometry: Geometry, num_heads: int, batch: int, like: Tensor) -> Windows:
    """Compute where the blocks of a map lie."""
    device = like.device
    rows = _make_axis(geometry.rows, geometry, like)
    columns = _make_axis(geometry.columns, geometry, like)
    head = torch.arange(num_heads, device=device)

    grid = rows.queries[:, None, :, None] * geometry.columns.num_queries + columns.queries[None, :, None, :]
    queries = grid[:, :, None] * num_heads + head[:, None, None]
    pixels = rows.keys[:, None, :, None] * geometry.columns.size + columns.keys[None, :, None, :]
    keys = pixels[:, :, None] * num_heads + head[:, None, None]
    if geometry.border == "zeros":
        outside = rows.outside[:, None, :, None] | columns.outside[None, :, None, :]
        keys = torch.where(outside[:, :, None], geometry.rows.size * geometry.columns.size * num_heads, keys)
    block = rows.block_of_query[:, None] * columns.blocks + columns.block_of_query
    slot = rows.slot_of_query[:, None] * columns.slots + columns.slot_of_query
    result = (block[..., None] * num_heads + head) * (rows.slots * columns.slots) + slot[..., None]

    queried = None
    if geometry.rows.stride > 1 or geometry.columns.stride > 1:
        row, column = (
            torch.arange(axis.num_queries, device=device) * axis.stride for axis in (geometry.rows, geometry.columns)
        )
        queried = (row[:, None] * geometry.columns.size + column).flatten()

    row_code = torch.eye(geometry.rows.window, dtype=like.dtype, device=device)
    column_code = torch.eye(geometry.columns.window, dtype=like.dtype, device=device)
    codes = torch.cat(
        [
            row_code[:, None].expand(-1, geometry.columns.window, -1),
            column_code[None].expand(geometry.rows.window, -1, -1),
        ],
        -1,
    ).flatten(0, 1)
    masks = None
    if rows.masks is not None and columns.masks is not None:
        differ = geometry.border == "mask" or not is_regular(geometry)
        blocks = (rows.blocks, columns.blocks) if differ else (1, 1)
        shape = (*blocks, rows.masks.shape[1], columns.masks.shape[1])
        masks = torch.cat(
            [rows.masks[:, None, :, None].expand(*shape, -1), columns.masks[None, :, None, :].expand(*shape, -1)], -1
        )
        masks = _copy(masks).view(blocks[0] * blocks[1], 1, -1, masks.shape[-1])
    row_tables = column_tables = None
    # One table for all is not expanded where there is one head: PyTorch would rule out maps of a single block.
    if not is_regular(geometry) or num_heads == 1:
        windows = (batch, rows.blocks, columns.blocks, num_heads)
        row_tables, column_tables = (
            _copy((index * (not _is_regular(axis))).expand(windows)).flatten()
            for index, axis in (
                (torch.arange(rows.blocks, device=device)[:, None, None], geometry.rows),
                (torch.arange(columns.blocks, device=device)[:, None], geometry.columns),
            )
        )
    num_blocks = rows.blocks * columns.blocks
    return Windows(
        queries=queries.flatten(),
        queries_by_column=queries.transpose(-2, -1).flatten(),
        keys=keys.flatten(),
        result=result.flatten(),
        queried=queried,
        row_tables=row_tables,
        column_tables=column_tables,
        shape=(batch, num_blocks, num_heads),
        slots=(rows.slots, columns.slots),
        codes=codes.expand(batch * num_blocks * num_heads, -1, -1),
        masks=masks,
    )


def halo_attention(
    query: Float[Tensor, "batch query_rows_columns_heads d_qk"],
    key: Float[Tensor, "batch rows_columns_heads d_qk"],
    value: Float[Tensor, "batch rows_columns_heads d_v"],
    row_table: Float[Tensor, "block_rows_or_1 slot_rows w_r window_rows"] | None,
    column_table: Float[Tensor, "block_columns_or_1 slot_columns w_c window_columns"] | None,
    *,
    windows: Windows,
    border: str,
) -> Float[Tensor, "batch query_rows_columns_heads d_v"]:
    """Attend block by block.

    Args:
        query: Times the scale.
        key: Of all pixels and heads, row by row.
        value: Likewise.
        row_table: From `expand_tables`.
        column_table: Likewise.
        windows: Of this map.
        border: "mask" or "zeros".
    """
    window, codes = windows.codes.shape[1:]
    slots = windows.slots[0] * windows.slots[1]
    if border == "zeros":
        key, value = F.pad(key, (0, 0, 0, 1)), F.pad(value, (0, 0, 0, 1))
    # Only a number that depends on the map is left to be inferred: Inductor infers others wrongly.
    queries = query.index_select(1, windows.queries).view(-1, *windows.slots, query.shape[-1])
    keys = key.index_select(1, windows.keys).view(-1, window, key.shape[-1])
    values = value.index_select(1, windows.keys).view(-1, window, value.shape[-1])
    positions = _position_logits(query, queries, row_table, column_table, windows)
    if windows.masks is not None:
        if positions is None:
            positions = query.new_zeros(1).expand(*windows.shape, slots, codes)
        masked = positions.view(*windows.shape, slots, codes) + windows.masks
        positions = masked.view(-1, *windows.slots, codes)
    if positions is not None:
        queries = torch.cat([queries, positions], -1)
        keys = torch.cat([keys, windows.codes], -1)
    weights = (queries.view(-1, slots, queries.shape[-1]) @ keys.mT).softmax(-1)
    batch, blocks, heads = windows.shape
    return (weights @ values).view(batch, blocks * heads * slots, value.shape[-1]).index_select(1, windows.result)


def _position_logits(
    query: Float[Tensor, "batch query_rows_columns_heads d_qk"],
    queries: Float[Tensor, "windows slot_rows slot_columns d_qk"],
    row_table: Float[Tensor, "block_rows_or_1 slot_rows w_r window_rows"] | None,
    column_table: Float[Tensor, "block_columns_or_1 slot_columns w_c window_columns"] | None,
    windows: Windows,
) -> Float[Tensor, "windows slot_rows slot_columns rows_and_columns"] | None:
    """Logit of every row and of every column of the window for each slot."""
    if row_table is None or column_table is None:
        return None
    if windows.row_tables is not None and windows.column_tables is not None:
        row_table = row_table.index_select(0, windows.row_tables)
        column_table = column_table.index_select(0, windows.column_tables)
    row_logits = queries[..., : row_table.shape[-2]] @ row_table
    by_column = query[..., query.shape[-1] - column_table.shape[-2] :].index_select(1, windows.queries_by_column)
    by_column = by_column.view(-1, *reversed(windows.slots), by_column.shape[-1])
    return torch.cat([row_logits, (by_column @ column_table).transpose(1, 2)], -1)


def _copy(x: Tensor) -> Tensor:
    """Copy in any case: whether a view would do is a question that rules out maps of a single block."""
    return x.clone(memory_format=torch.contiguous_format)


def _is_regular(axis: Axis) -> bool:
    return axis.block % axis.stride == 0


def _num_slots(axis: Axis) -> int:
    """Queries in a block; where the stride is beyond the block, every query has a block of its own."""
    return 1 if axis.stride > axis.block else (axis.block + axis.stride - 1) // axis.stride


def _places(axis: Axis, device: torch.device | None) -> Int[Tensor, "blocks_or_1 slots"]:
    """Where the queries of each block stand in it; of one block where all are alike."""
    slots = torch.arange(_num_slots(axis), device=device) * axis.stride
    if _is_regular(axis):
        return slots[None]
    top = _tops(axis, device)
    return ((top + axis.stride - 1) // axis.stride * axis.stride - top)[:, None] + slots


def _entries(axis: Axis, device: torch.device | None) -> Int[Tensor, "blocks_or_1 slots window"]:
    """Entries of the table for each slot and each key of its window, 0 where there is none."""
    slot = torch.arange(_num_slots(axis), device=device)
    counts_as = _places(axis, device) + slot * (axis.offset_stride - axis.stride)
    found = torch.arange(axis.window, device=device) - counts_as[..., None] + axis.block - 1
    return torch.where((found >= 0) & (found < axis.table_length), found, 0)


def _tops(axis: Axis, device: torch.device | None) -> Int[Tensor, " blocks"]:
    if axis.stride > axis.block:
        return torch.arange(axis.num_queries, device=device) * axis.stride // axis.block * axis.block
    return torch.arange(axis.num_blocks, device=device) * axis.block


def _make_axis(axis: Axis, geometry: Geometry, like: Tensor) -> _AxisWindows:
    device = like.device
    sparse = axis.stride > axis.block
    num_slots, top = _num_slots(axis), _tops(axis, device)
    first_query = (top + axis.stride - 1) // axis.stride
    queries = (first_query[:, None] + torch.arange(num_slots, device=device)).clamp(max=axis.num_queries - 1)
    query = torch.arange(axis.num_queries, device=device)
    block_of_query = query if sparse else query * axis.stride // axis.block
    slot_of_query = query - first_query.index_select(0, block_of_query)

    place = torch.arange(axis.window, device=device)
    pixels = top[:, None] - axis.halo + place
    outside = (pixels < 0) | (pixels >= axis.size)
    masks = []
    if geometry.border == "mask":
        masks.append(outside[:, None])
    if geometry.centered:
        masks.append((place - axis.halo - _places(axis, device)[..., None]).abs() > axis.halo)
    masked = None if not masks else masks[0] if len(masks) == 1 else masks[0] | masks[1]
    return _AxisWindows(
        blocks=axis.num_queries if sparse else axis.num_blocks,
        slots=num_slots,
        queries=queries,
        block_of_query=block_of_query,
        slot_of_query=slot_of_query,
        keys=pixels.clamp(min=0, max=axis.size - 1),
        outside=outside,
        masks=None if masked is None else masked.to(like.dtype) * MASKED,
    )
