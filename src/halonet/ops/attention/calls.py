"""The public operator: check the call, choose a backend, run it."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from halonet.ops.arguments import finite_number
from halonet.ops.attention import reference
from halonet.ops.attention.backends import BACKENDS, note_missing_library, select_backend
from halonet.ops.attention.checks import check_inputs, check_layout, check_positions
from halonet.ops.attention.geometry import Axis, Geometry, clip, make_geometry
from halonet.ops.attention.packed import Packed, unpack
from halonet.ops.tracing import is_autocast_available


def halo_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    row_embedding: Tensor | None = None,
    column_embedding: Tensor | None = None,
    *,
    block_size: int | tuple[int, int],
    halo_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    scale: float | None = None,
    border: str = "mask",
    centered: bool = False,
    offset_stride: int | tuple[int, int] | None = None,
    backend: str = "auto",
) -> Tensor:
    """Blocked local self-attention with a halo (HaloNet, sections 2.1-2.2 and appendix A).

    The image is cut from its top-left corner into blocks of b x b pixels (the last ones may be partial); all
    queries of a block attend to the block and a halo of h pixels around it. With a stride the result equals the
    stride-1 result subsampled. See `docs/operator.md`.

    Args:
        query: [batch, ceil(H / stride), ceil(W / stride), heads, d_qk]; fp64, fp32, bf16 or fp16.
        key: [batch, H, W, heads, d_qk], same dtype.
        value: [batch, H, W, heads, d_v], same dtype.
        row_embedding: [2 * (block_rows + halo_rows) - 1, w_r], or None. Entry t belongs to the offset
            key_row - query_row = t - (block_rows + halo_rows - 1). Same dtype as the query, or fp32. `split`
            tables have w_r + w_c == d_qk (rows read the first w_r channels, columns the rest); `full` tables
            have w_r == w_c == d_qk and their logits add.
        column_embedding: [2 * (block_columns + halo_columns) - 1, w_c] likewise; both tables or none.
        block_size: The paper's b in pixels, int or (rows, columns), at least 1.
        halo_size: The paper's h in pixels, int or (rows, columns), at least 0.
        stride: Pixels between queries, int or (rows, columns), at least 1.
        scale: Factor of all logits; None takes d_qk ** -0.5.
        border: "mask": keys outside the image do not exist. "zeros": they are zeros that receive their position
            logit and take weight, in a window that is always (b + 2h) squared (timm's rule).
        centered: Keep, for each query, only the keys within `halo_size` of itself (SASA).
        offset_stride: Pixels that one query step counts for in the offsets; None takes `stride`. May differ from
            it only where the stride divides the block. timm's weights use 1.
        backend: "auto", "cpu", "triton", "composite" or "reference". A named backend is used, or refused with the
            reason.

    Returns:
        [batch, ceil(H / stride), ceil(W / stride), heads, d_v] in the dtype of the query (under autocast: the
        autocast dtype). Softmax and sums are at least fp32; `reference` computes its logits so too, while `composite`
        rounds the position logits to bf16 in bf16.

    Raises:
        UserError: If shapes, dtypes, devices or numbers do not fit; the message names value, rule and remedy.
    """
    check_layout(query=query, key=key, value=value)
    query, key, value = _autocast(query, key, value)
    geometry = make_geometry(
        key.shape[1], key.shape[2], block_size=block_size, halo_size=halo_size, stride=stride,
        offset_stride=offset_stride, border=border, centered=centered,
    )  # fmt: skip
    return _attend(query, key, value, row_embedding, column_embedding, geometry, scale, backend)


def packed_attention(
    packed: Packed,
    row_embedding: Tensor | None,
    column_embedding: Tensor | None,
    *,
    scale: float | None,
    backend: str,
    **options: Any,
) -> Tensor:
    """`halo_attention` of a layer's projection, whose gradient the fused backends return in one piece.

    The options are those of `make_geometry`.
    """
    tensor, query, *sizes = packed
    (tensor,) = _autocast(tensor)
    if query is not None:
        (query,) = _autocast(query)
    packed = Packed(tensor, query, *sizes)
    query, key, value = unpack(packed)
    geometry = make_geometry(key.shape[1], key.shape[2], **options)
    return _attend(query, key, value, row_embedding, column_embedding, geometry, scale, backend, packed)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    row_embedding: Tensor | None,
    column_embedding: Tensor | None,
    geometry: Geometry,
    scale: float | None,
    backend: str,
    packed: Packed | None = None,
) -> Tensor:
    """Check the tensors, choose a backend and run it, on `packed` (the same tensors) if it takes that."""
    check_inputs(query, key, value, row_embedding, column_embedding, geometry)
    geometry, row_embedding, column_embedding = _clip(geometry, row_embedding, column_embedding)
    factor = _factor(scale, query)
    name = select_backend(query, key, value, geometry, backend=backend)
    if name == "composite" and backend == "auto" and query.device.type == "cpu":
        note_missing_library()
    chosen = BACKENDS[name]
    with _without_autocast(query.device.type):
        if packed is not None and chosen.run_packed is not None:
            return chosen.run_packed(packed, row_embedding, column_embedding, geometry=geometry, scale=factor)
        return chosen.run(query, key, value, row_embedding, column_embedding, geometry=geometry, scale=factor)


def attention_weights(
    query: Tensor,
    key: Tensor,
    row_embedding: Tensor | None = None,
    column_embedding: Tensor | None = None,
    *,
    positions: Tensor,
    block_size: int | tuple[int, int],
    halo_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    scale: float | None = None,
    border: str = "mask",
    centered: bool = False,
    offset_stride: int | tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Where the queries at some positions look, as maps over the image.

    `positions` are integers [P, 2], rows and columns of the query grid. All other arguments are those of
    `halo_attention`.

    Returns:
        The weights [batch, P, heads, H, W] (0 outside the window), and the weight [batch, P, heads] that went to
        padding (0 with `border="mask"`); both fp32, or fp64 for fp64 inputs. Together they sum to 1.

    Raises:
        UserError: If anything does not fit, or a position lies outside the query grid.
    """
    check_layout(query=query, key=key)
    geometry = make_geometry(
        key.shape[1], key.shape[2], block_size=block_size, halo_size=halo_size, stride=stride,
        offset_stride=offset_stride, border=border, centered=centered,
    )  # fmt: skip
    check_inputs(query, key, None, row_embedding, column_embedding, geometry)
    geometry, row_embedding, column_embedding = _clip(geometry, row_embedding, column_embedding)
    rows, columns = check_positions(positions, query)
    height, width = key.shape[1], key.shape[2]
    with _without_autocast(query.device.type):
        probabilities, window_rows, window_columns = reference.window_probabilities(
            query[:, rows, columns], key, row_embedding, column_embedding,
            rows=rows, columns=columns, geometry=geometry, scale=_factor(scale, query),
        )  # fmt: skip
    # One extra cell at the end collects the weight of padding.
    row, column = window_rows[:, :, None], window_columns[:, None, :]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    cells = torch.where(inside, row * width + column, height * width)
    probabilities = probabilities.flatten(-2)
    maps = probabilities.new_zeros(*probabilities.shape[:3], height * width + 1)
    maps = maps.scatter_add(-1, cells.flatten(1)[None, :, None].expand_as(probabilities), probabilities)
    return maps[..., :-1].unflatten(-1, (height, width)), maps[..., -1]


def _clip(
    geometry: Geometry, row_embedding: Tensor | None, column_embedding: Tensor | None
) -> tuple[Geometry, Tensor | None, Tensor | None]:
    """Clip a geometry to the image, and the tables to the offsets that are left."""
    clipped = clip(geometry)
    return (
        clipped,
        _around_offset_0(row_embedding, geometry.rows, clipped.rows),
        _around_offset_0(column_embedding, geometry.columns, clipped.columns),
    )


def _around_offset_0(table: Tensor | None, axis: Axis, clipped: Axis) -> Tensor | None:
    """Cut a table to the offsets that a clipped axis has, in the middle of the table."""
    if table is None or clipped.table_length == axis.table_length:
        return table
    return table.narrow(0, (axis.table_length - clipped.table_length) // 2, clipped.table_length)


def _factor(scale: float | None, query: Tensor) -> float:
    return query.shape[-1] ** -0.5 if scale is None else finite_number("scale", scale)


def _autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Cast as PyTorch's own autocast would: fp64 stays, the rest takes the autocast dtype."""
    device = tensors[0].device.type
    if not _autocast_enabled(device):
        return tensors
    low = torch.get_autocast_dtype(device)
    eligible = (torch.float32, torch.bfloat16, torch.float16)
    return tuple(tensor.to(low) if tensor.dtype in eligible else tensor for tensor in tensors)


def _autocast_enabled(device: str) -> bool:
    return is_autocast_available(device) and torch.is_autocast_enabled(device)


def _without_autocast(device: str) -> AbstractContextManager[object]:
    return torch.autocast(device, enabled=False) if _autocast_enabled(device) else nullcontext()
