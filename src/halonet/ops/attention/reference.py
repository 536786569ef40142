"""The specification of halo attention: every query gathers its own window, and the paper's equation follows.

Query (i, j) stands at pixel (s·i, s·j) and belongs to the b x b block that holds that pixel. Its window is the
block with a halo of h pixels around it (with `centered`, the pixels within h of the query itself), and

    logit(key)  = scale · (q · k + q · r_row[key_row - query_row] + q · r_column[key_column - query_column])
    output      = sum over the window of softmax(logit) · v

With `border="mask"` keys outside the image do not exist. With `border="zeros"` they are zero keys and values
that still receive their position logit and take weight. `split` tables read the first and the last channels of
the query; `full` tables read all of them. Half precision is computed in fp32.

Slow and clear on purpose: memory grows as queries x window x channels. Plain PyTorch, so it differentiates
twice and works under `torch.func`.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from halonet.ops.attention.geometry import Axis, Geometry


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
    """Attend from every query to its window."""
    rows = torch.arange(geometry.rows.num_queries, device=query.device)
    columns = torch.arange(geometry.columns.num_queries, device=query.device)
    rows, columns = (grid.flatten() for grid in torch.meshgrid(rows, columns, indexing="ij"))
    probabilities, window_rows, window_columns = window_probabilities(
        query.flatten(1, 2), key, row_embedding, column_embedding,
        rows=rows, columns=columns, geometry=geometry, scale=scale,
    )  # fmt: skip
    windows = gather_windows(value.to(probabilities.dtype), window_rows, window_columns, geometry)
    result = torch.einsum("bpnyx,bpyxnd->bpnd", probabilities, windows)
    return result.unflatten(1, (query.shape[1], query.shape[2])).to(query.dtype)


def window_probabilities(
    query: Float[Tensor, "batch points heads d_qk"],
    key: Float[Tensor, "batch rows columns heads d_qk"],
    row_embedding: Float[Tensor, "row_offsets w_r"] | None,
    column_embedding: Float[Tensor, "column_offsets w_c"] | None,
    *,
    rows: Int[Tensor, " points"],
    columns: Int[Tensor, " points"],
    geometry: Geometry,
    scale: float,
) -> tuple[
    Float[Tensor, "batch points heads window_rows window_columns"],
    Int[Tensor, "points window_rows"],
    Int[Tensor, "points window_columns"],
]:
    """Softmax of the queries at (rows, columns) of the query grid over their windows, in fp32 (fp64 for fp64).

    Returns:
        The probabilities, and the pixel rows and columns of each window, which may lie outside the image.
    """
    accumulate = torch.float64 if query.dtype == torch.float64 else torch.float32
    query, key = query.to(accumulate), key.to(accumulate)
    window_rows, row_entries = window_of(rows, geometry.rows, geometry.centered)
    window_columns, column_entries = window_of(columns, geometry.columns, geometry.centered)

    logits = torch.einsum("bpnd,bpyxnd->bpnyx", query, gather_windows(key, window_rows, window_columns, geometry))
    if row_embedding is not None and column_embedding is not None:
        row_table = row_embedding.to(accumulate)[row_entries]
        column_table = column_embedding.to(accumulate)[column_entries]
        row_query = query[..., : row_table.shape[-1]]
        column_query = query[..., query.shape[-1] - column_table.shape[-1] :]
        logits = logits + torch.einsum("bpnd,pyd->bpny", row_query, row_table)[..., :, None]
        logits = logits + torch.einsum("bpnd,pxd->bpnx", column_query, column_table)[..., None, :]
    logits = logits * scale

    if geometry.border == "mask":
        inside_rows = (window_rows >= 0) & (window_rows < geometry.rows.size)
        inside_columns = (window_columns >= 0) & (window_columns < geometry.columns.size)
        inside = inside_rows[:, :, None] & inside_columns[:, None, :]
        logits = logits.masked_fill(~inside[:, None], float("-inf"))
    return logits.flatten(-2).softmax(-1).view_as(logits), window_rows, window_columns


def window_of(
    query: Int[Tensor, " points"], axis: Axis, centered: bool
) -> tuple[Int[Tensor, "points window"], Int[Tensor, "points window"]]:
    """Pixels that the queries of some indices see along one axis, also outside the image, and their table entries."""
    pixel = query * axis.stride
    block_top = pixel // axis.block * axis.block
    first = pixel - axis.halo if centered else block_top - axis.halo
    length = 2 * axis.halo + 1 if centered else axis.window
    window = first[:, None] + torch.arange(length, device=query.device)

    steps_into_block = (pixel - block_top) // axis.stride
    counts_as_standing_at = pixel + steps_into_block * (axis.offset_stride - axis.stride)
    return window, window - counts_as_standing_at[:, None] + (axis.block + axis.halo - 1)


def gather_windows(
    image: Float[Tensor, "batch rows columns heads channels"],
    window_rows: Int[Tensor, "points window_rows"],
    window_columns: Int[Tensor, "points window_columns"],
    geometry: Geometry,
) -> Float[Tensor, "batch points window_rows window_columns heads channels"]:
    """Read each point's window from the image, zeros outside it."""
    rows, columns = geometry.rows, geometry.columns
    after_rows = rows.num_blocks * rows.block - rows.size + rows.halo
    after_columns = columns.num_blocks * columns.block - columns.size + columns.halo
    padded = F.pad(image, (0, 0, 0, 0, columns.halo, after_columns, rows.halo, after_rows))
    return padded[:, (window_rows + rows.halo)[:, :, None], (window_columns + columns.halo)[:, None, :]]
