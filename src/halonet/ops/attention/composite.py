"""Halo attention as gathered windows and one call of PyTorch's fused attention.

Positions and masks are extra channels: a query holds its logit for every row and every column of its window, and a
key the one-hot of its own row and column, so that query · key is the whole logit. The fused kernel then needs no
bias (one that requires gradients would take its slow path) and writes no score matrix. All masks of halo attention
are products of a row rule and a column rule, so they fit too.

Windows are shifted inward at the border instead of padded, and the extra keys masked; where the image is at
most two blocks high or wide the window shrinks to what is visible. Runs on every device PyTorch has, traces
under `torch.compile(fullgraph=True)` and `torch.export` with dynamic sizes.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from halonet.ops.attention.geometry import Axis, Geometry


class Windows(NamedTuple):
    """Index tensors of one axis. A group is the queries of one block.

    Attributes:
        queries: Query index of each slot of a group; slots beyond a group's queries repeat its last.
        slots: Where each query of the image lies among the flattened slots.
        keys: Pixel of each key of a group's window.
        visible: Whether a slot sees a key.
        entries: Entry of the embedding table for a slot and a key, 0 where there is none.
    """

    queries: Int[Tensor, "groups slots"]
    slots: Int[Tensor, " queries"]
    keys: Int[Tensor, "groups window"]
    visible: Bool[Tensor, "groups slots window"]
    entries: Int[Tensor, "groups slots window"]


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
    """Attend block by block."""
    if query.dtype == torch.float16:  # its range has no room for masks among the logits
        query, key, value = query.float(), key.float(), value.float()
        result = halo_attention(query, key, value, row_embedding, column_embedding, geometry=geometry, scale=scale)
        return result.half()
    if not 1e-6 < scale < 1e6:  # masks are scaled too, and must stay large and negative
        query, scale = query * scale, 1.0
    rows = make_windows(geometry.rows, geometry, query.device)
    columns = make_windows(geometry.columns, geometry, query.device)
    if geometry.border == "zeros":
        key, value = pad_to_windows(key, geometry), pad_to_windows(value, geometry)

    queries = cut(query, rows.queries, columns.queries)
    key_windows = cut(key, rows.keys, columns.keys)
    value_windows = cut(value, rows.keys, columns.keys)
    row_logits, column_logits = position_logits(queries, rows, columns, row_embedding, column_embedding)
    queries = torch.cat([queries, row_logits, column_logits], -1)
    marks = one_hots(rows.keys.shape[1], columns.keys.shape[1], key_windows)
    keys = torch.cat([key_windows, marks], -1)

    d_v, width = value.shape[-1], max(value.shape[-1], keys.shape[-1])
    result = F.scaled_dot_product_attention(
        widen(queries, width).transpose(1, 2),
        widen(keys, width).transpose(1, 2),
        widen(value_windows, width).transpose(1, 2),
        scale=scale,
    )
    return restore(result[..., :d_v].transpose(1, 2), query.shape[:3], rows, columns)


def make_windows(axis: Axis, geometry: Geometry, device: torch.device) -> Windows:
    """Derive one axis' index tensors from its integers."""
    # A stride beyond the block leaves blocks without queries: then every query is a group of its own.
    sparse = axis.stride > axis.block
    num_groups = axis.num_queries if sparse else axis.num_blocks
    # An exported program must not depend on there being one block or more: a second, empty group is harmless.
    if not isinstance(num_groups, int) and not statically_known_true(num_groups >= 2):
        num_groups = torch.sym_max(num_groups, 2)
    num_slots = 1 if sparse else -(-axis.block // axis.stride)
    group = torch.arange(num_groups, device=device)
    block = group * axis.stride // axis.block if sparse else group
    top = block * axis.block
    first_query = (top + axis.stride - 1) // axis.stride
    last_query = ((top + axis.block - 1) // axis.stride).clamp(max=axis.num_queries - 1)

    all_queries = torch.arange(axis.num_queries, device=device)
    group_of_query = all_queries if sparse else all_queries * axis.stride // axis.block
    slots = group_of_query * num_slots + all_queries - first_query[group_of_query]

    slot = torch.arange(num_slots, device=device)
    queries = torch.minimum(first_query[:, None] + slot, last_query[:, None])
    pixel = (first_query[:, None] + slot) * axis.stride
    counts_as = pixel + slot * (axis.offset_stride - axis.stride)  # where the offsets are counted from

    if geometry.border == "zeros":
        coordinates = top[:, None] - axis.halo + torch.arange(axis.window, device=device)
        last = axis.num_blocks * axis.block + 2 * axis.halo - 1
        keys = (coordinates + axis.halo).clamp(max=last)
        exists = torch.ones_like(coordinates, dtype=torch.bool)
    else:
        length = visible_window(axis)
        start = torch.clamp(top - axis.halo, min=0).clamp(max=max(axis.size - length, 0))
        coordinates = start[:, None] + torch.arange(length, device=device)
        # A masked key repeats a pixel of the window: NaN outside the window must not come in.
        first, last = (top - axis.halo).clamp(min=0), (top + axis.block + axis.halo - 1).clamp(max=axis.size - 1)
        keys = torch.minimum(torch.maximum(coordinates, first[:, None]), last[:, None]).clamp(max=axis.size - 1)
        exists = coordinates < axis.size
    coordinates = coordinates[:, None, :]
    if geometry.centered:
        near = (coordinates - pixel[:, :, None]).abs() <= axis.halo
    else:
        low = (top - axis.halo)[:, None, None]
        near = ((coordinates >= low) & (coordinates < low + axis.window)).expand(-1, num_slots, -1)
    # No clamp: Inductor (2.11 to 2.15) fails on Max and Min of an index that passed through a concatenation.
    entries = coordinates - counts_as[:, :, None] + axis.block + axis.halo - 1
    entries = torch.where((entries >= 0) & (entries < axis.table_length), entries, 0)
    return Windows(queries, slots, keys, near & exists[:, None, :], entries)


def visible_window(axis: Axis) -> int:
    """Most pixels of the image that any block sees: less than b + 2h where there are one or two blocks."""
    if statically_known_true(axis.size <= 2 * axis.block):
        return min(axis.size, axis.block + axis.halo)
    if statically_known_true(axis.size <= axis.window):
        return axis.size
    return axis.window


def pad_to_windows(
    image: Float[Tensor, "batch rows columns heads channels"], geometry: Geometry
) -> Float[Tensor, "batch padded_rows padded_columns heads channels"]:
    """Surround the image with zeros until every window, those of partial blocks too, lies inside."""
    rows, columns = geometry.rows, geometry.columns
    after_rows = rows.num_blocks * rows.block - rows.size + rows.halo
    after_columns = columns.num_blocks * columns.block - columns.size + columns.halo
    return F.pad(image, (0, 0, 0, 0, columns.halo, after_columns, rows.halo, after_rows))


def cut(
    image: Float[Tensor, "batch rows columns heads channels"],
    rows: Int[Tensor, "group_rows slot_rows"],
    columns: Int[Tensor, "group_columns slot_columns"],
) -> Float[Tensor, "groups slots heads channels"]:
    """Gather the pixels (rows, columns) of every group of every image.

    The pixels are a table and the groups are looked up in it: the fastest gather on a CPU, forward and backward,
    and, unlike `index_select`, deterministic on CUDA.
    """
    batch, height, width, heads, channels = image.shape
    pixels = (rows * width)[:, None, :, None] + columns[None, :, None, :]
    pixels = pixels.view(-1, rows.shape[1] * columns.shape[1])
    images = torch.arange(batch, device=image.device) * (height * width)
    lookup = (images[:, None, None] + pixels).view(-1, pixels.shape[1])
    return F.embedding(lookup, image.reshape(-1, heads * channels)).unflatten(-1, (heads, channels))


def restore(
    result: Float[Tensor, "groups slots heads channels"],
    grid: tuple[int, ...],
    rows: Windows,
    columns: Windows,
) -> Float[Tensor, "batch query_rows query_columns heads channels"]:
    """Put the slots of all groups back into a grid (batch, query_rows, query_columns), without those of no query."""
    slot_rows, slot_columns = rows.queries.shape[1], columns.queries.shape[1]
    group_columns, slots = columns.queries.shape[0], slot_rows * slot_columns
    group_row, slot_row = rows.slots // slot_rows, rows.slots % slot_rows
    group_column, slot_column = columns.slots // slot_columns, columns.slots % slot_columns
    group = (group_row * group_columns)[:, None] + group_column
    pixels = group * slots + (slot_row * slot_columns)[:, None] + slot_column
    images = torch.arange(grid[0], device=result.device) * (rows.queries.shape[0] * group_columns * slots)
    lookup = images[:, None, None] + pixels
    heads, channels = result.shape[2:]
    return F.embedding(lookup, result.reshape(-1, heads * channels)).unflatten(-1, (heads, channels))


def position_logits(
    queries: Float[Tensor, "groups slots heads d_qk"],
    rows: Windows,
    columns: Windows,
    row_embedding: Float[Tensor, "row_offsets w_r"] | None,
    column_embedding: Float[Tensor, "column_offsets w_c"] | None,
) -> tuple[Float[Tensor, "groups slots heads window_rows"], Float[Tensor, "groups slots heads window_columns"]]:
    """Logit of every row and every column of the window for each query; a huge negative one where it is masked."""
    shape = (rows.queries.shape[0], columns.queries.shape[0], rows.queries.shape[1], columns.queries.shape[1])
    row_visible, row_entries = (
        each[:, None, :, None].expand(*shape, -1).reshape(-1, queries.shape[1], 1, each.shape[-1])
        for each in (rows.visible, rows.entries)
    )
    column_visible, column_entries = (
        each[None, :, None].expand(*shape, -1).reshape(-1, queries.shape[1], 1, each.shape[-1])
        for each in (columns.visible, columns.entries)
    )
    if row_embedding is None or column_embedding is None:
        zero = queries.new_zeros(1).expand(*queries.shape[:-1], 1)
        row_logits, column_logits = zero, zero
    else:
        row_query = queries[..., : row_embedding.shape[1]]
        column_query = queries[..., queries.shape[-1] - column_embedding.shape[1] :]
        row_logits = look_up(row_query, row_embedding, row_entries).to(queries.dtype)
        column_logits = look_up(column_query, column_embedding, column_entries).to(queries.dtype)
    return mask(row_logits, row_visible), mask(column_logits, column_visible)


def look_up(
    queries: Float[Tensor, "groups slots heads width"],
    table: Float[Tensor, "offsets width"],
    entries: Int[Tensor, "groups_of_image slots 1 window"],
) -> Float[Tensor, "groups slots heads window"]:
    """Multiply each query with the whole table and pick the offsets of its window, in the wider of both dtypes."""
    dtype = torch.promote_types(queries.dtype, table.dtype)
    logits = queries.to(dtype) @ table.to(dtype).mT
    logits = logits.unflatten(0, (-1, entries.shape[0]))
    return logits.gather(-1, entries.expand(*logits.shape[:-1], -1)).flatten(0, 1)


def mask(
    logits: Float[Tensor, "groups slots heads window_or_1"],
    visible: Bool[Tensor, "groups_of_image slots 1 window"],
) -> Float[Tensor, "groups slots heads window"]:
    """Set invisible keys to a quarter of the lowest number: the masks of a row and a column add up without overflow."""
    lowest = torch.finfo(logits.dtype).min / 4
    logits = logits.unflatten(0, (-1, visible.shape[0])).masked_fill(~visible, lowest)
    return logits.flatten(0, 1)


def one_hots(
    window_rows: int, window_columns: int, like: Float[Tensor, "groups window heads channels"]
) -> Float[Tensor, "groups window heads rows_and_columns"]:
    """Mark each key with its row and its column of the window."""
    row = torch.eye(window_rows, dtype=like.dtype, device=like.device)
    column = torch.eye(window_columns, dtype=like.dtype, device=like.device)
    row = row[:, None, :].expand(-1, window_columns, -1)
    column = column[None, :, :].expand(window_rows, -1, -1)
    marks = torch.cat([row, column], -1).flatten(0, 1)
    return marks[:, None, :].expand(*like.shape[:-1], -1)


def widen(tensor: Tensor, width: int) -> Tensor:
    """Add zero channels up to `width`: the fused kernels take query, key and value of one width."""
    return F.pad(tensor, (0, width - tensor.shape[-1])) if tensor.shape[-1] < width else tensor
