"""Halo attention as gathered windows and one call of PyTorch's fused attention.

Positions and masks ride along as extra channels: a query carries its logit for every row and every column of
its window, a key carries the one-hot of its own row and column, so that query · key is the whole logit. The
fused kernel then needs no bias (a bias that wants gradients would send it to its slow path) and no score
matrix is written. All masks of halo attention are products of a row rule and a column rule, so they fit too.

Windows are shifted inward at the border instead of padded, and the extra keys masked; where the image is at
most two blocks high or wide the window shrinks to what is visible. Runs on every device PyTorch has, traces
under `torch.compile(fullgraph=True)` and `torch.export` with dynamic sizes.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from halonet.ops.halo_attention.geometry import Axis, Geometry


@dataclass
class Windows:
    """Index tensors of one axis. A group is the queries of one block.

    Attributes:
        queries: Query index of each slot of a group; slots beyond a group's queries repeat a neighbor.
        slots: Where each query of the image lies among the flattened slots.
        keys: Key index of each place of a group's window.
        visible: Whether a slot may see a place.
        entries: Entry of the embedding table for a slot and a place, clamped where not visible.
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
    """Attend block by block, as the module docstring says."""
    if scale <= 0:  # a mask of large negative logits must stay negative
        query, scale = query * scale, 1.0
    rows = make_windows(geometry.rows, geometry, query.device)
    columns = make_windows(geometry.columns, geometry, query.device)
    if geometry.border == "zeros":
        key, value = pad_to_windows(key, geometry), pad_to_windows(value, geometry)

    grouped = cut(query, rows.queries, columns.queries)
    row_logits, column_logits = position_logits(grouped, rows, columns, row_embedding, column_embedding)
    key_windows = cut(key, rows.keys, columns.keys)
    value_windows = cut(value, rows.keys, columns.keys)

    batch, group_rows, group_columns, heads = grouped.shape[:4]
    groups = batch * group_rows * group_columns
    queries = torch.cat([grouped, row_logits.to(query.dtype), column_logits.to(query.dtype)], -1)
    keys = torch.cat([key_windows, one_hots(key_windows)], -1)
    d_v, width = value.shape[-1], max(value.shape[-1], keys.shape[-1])
    result = F.scaled_dot_product_attention(
        widen(queries, width).reshape(groups, heads, -1, width),
        widen(keys, width).reshape(groups, heads, -1, width),
        widen(value_windows, width).reshape(groups, heads, -1, width),
        scale=scale,
    )[..., :d_v]
    result = result.reshape(batch, group_rows, group_columns, heads, rows.queries.shape[1], -1, d_v)
    result = result.permute(0, 1, 4, 2, 5, 3, 6).flatten(3, 4).flatten(1, 2)
    return result.index_select(1, rows.slots).index_select(2, columns.slots)


def make_windows(axis: Axis, geometry: Geometry, device: torch.device) -> Windows:
    """Derive one axis' index tensors from its integers."""
    # A stride beyond the block leaves blocks without queries: then every query is a group of its own.
    sparse = axis.stride > axis.block
    num_groups = axis.num_queries if sparse else axis.num_blocks
    num_slots = 1 if sparse else -(-axis.block // axis.stride)
    group = torch.arange(num_groups, device=device)
    block = group * axis.stride // axis.block if sparse else group
    top = block * axis.block
    first_query = (top + axis.stride - 1) // axis.stride

    all_queries = torch.arange(axis.num_queries, device=device)
    group_of_query = all_queries if sparse else all_queries * axis.stride // axis.block
    slots = group_of_query * num_slots + all_queries - first_query[group_of_query]

    slot = torch.arange(num_slots, device=device)
    pixel = (first_query[:, None] + slot) * axis.stride
    standing = pixel + slot * (axis.offset_stride - axis.stride)

    if geometry.border == "zeros":
        coordinates = top[:, None] - axis.halo + torch.arange(axis.window, device=device)
        keys, exists = coordinates + axis.halo, torch.ones_like(coordinates, dtype=torch.bool)
    else:
        length = visible_window(axis)
        start = torch.clamp(top - axis.halo, min=0).clamp(max=max(axis.size - length, 0))
        coordinates = start[:, None] + torch.arange(length, device=device)
        keys, exists = coordinates.clamp(max=axis.size - 1), coordinates < axis.size
    coordinates = coordinates[:, None, :]
    if geometry.centered:
        near = (coordinates - pixel[:, :, None]).abs() <= axis.halo
    else:
        low = (top - axis.halo)[:, None, None]
        near = (coordinates >= low) & (coordinates < low + axis.window)
        near = near.expand(-1, num_slots, -1)
    entries = (coordinates - standing[:, :, None] + axis.block + axis.halo - 1).clamp(0, axis.table_length - 1)
    queries = (first_query[:, None] + slot).clamp(max=axis.num_queries - 1)
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
) -> Float[Tensor, "batch group_rows group_columns heads slot_rows slot_columns channels"]:
    """Gather the pixels (rows, columns) of every group."""
    gathered = image.index_select(1, rows.flatten()).index_select(2, columns.flatten())
    return gathered.unflatten(2, columns.shape).unflatten(1, rows.shape).permute(0, 1, 3, 5, 2, 4, 6)


def position_logits(
    grouped: Float[Tensor, "batch group_rows group_columns heads slot_rows slot_columns d_qk"],
    rows: Windows,
    columns: Windows,
    row_embedding: Float[Tensor, "row_offsets w_r"] | None,
    column_embedding: Float[Tensor, "column_offsets w_c"] | None,
) -> tuple[
    Float[Tensor, "batch group_rows group_columns heads slot_rows slot_columns window_rows"],
    Float[Tensor, "batch group_rows group_columns heads slot_rows slot_columns window_columns"],
]:
    """Logit of every row and every column of the window for each query; a huge negative one where it is masked."""
    if row_embedding is None or column_embedding is None:
        row_logits = grouped.new_zeros(1).expand(*grouped.shape[:-1], rows.keys.shape[1])
        column_logits = grouped.new_zeros(1).expand(*grouped.shape[:-1], columns.keys.shape[1])
    else:
        promoted = torch.promote_types(grouped.dtype, row_embedding.dtype)
        row_query = grouped[..., : row_embedding.shape[1]].to(promoted)
        column_query = grouped[..., grouped.shape[-1] - column_embedding.shape[1] :].to(promoted)
        row_table = row_embedding.to(promoted)[rows.entries]
        column_table = column_embedding.to(promoted)[columns.entries]
        row_logits = torch.einsum("brcnijd,riyd->brcnijy", row_query, row_table)
        column_logits = torch.einsum("brcnijd,cjxd->brcnijx", column_query, column_table)
    # Two of these must add up without overflow, in the query's dtype.
    masked = torch.finfo(grouped.dtype).min / 4
    row_visible = rows.visible[:, None, None, :, None, :]
    column_visible = columns.visible[:, None, None, :, :]
    return row_logits.masked_fill(~row_visible, masked), column_logits.masked_fill(~column_visible, masked)


def one_hots(
    key_windows: Float[Tensor, "batch group_rows group_columns heads window_rows window_columns channels"],
) -> Float[Tensor, "batch group_rows group_columns heads window_rows window_columns rows_and_columns"]:
    """Mark each key with its row and its column of the window."""
    window_rows, window_columns = key_windows.shape[4:6]
    options = dict(dtype=key_windows.dtype, device=key_windows.device)
    row = torch.eye(window_rows, **options)[:, None, :].expand(-1, window_columns, -1)
    column = torch.eye(window_columns, **options)[None, :, :].expand(window_rows, -1, -1)
    return torch.cat([row, column], -1).expand(*key_windows.shape[:-1], -1)


def widen(tensor: Tensor, width: int) -> Tensor:
    """Add zero channels up to `width`: the fused kernels want equal widths of query, key and value."""
    return F.pad(tensor, (0, width - tensor.shape[-1])) if tensor.shape[-1] < width else tensor
