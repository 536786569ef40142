"""Halo attention by brute force: one query pixel, one key pixel at a time, in fp64.

Written from the operator's contract and sharing nothing with the package, so that a mistake would have to be made
twice to stay unseen. Slow on purpose; autograd runs through it, so that it judges gradients too.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.testing import assert_close


class Answer(NamedTuple):
    """What the operator must give.

    output: [batch, query rows, query columns, heads, d_v].
    weights: [batch, query rows, query columns, heads, rows, columns], what each query takes from each real pixel.
    outside: [batch, query rows, query columns, heads], what it takes from beyond the image.
    """

    output: Tensor
    weights: Tensor
    outside: Tensor


# Two fp64 computations of the same numbers, added up in different orders.
assert_agree = partial(assert_close, rtol=1e-10, atol=1e-10)


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def keys_of_query(
    index: int,
    *,
    length: int,
    block: int,
    halo: int,
    stride: int,
    offset_stride: int | None,
    border: str,
    centered: bool,
) -> Iterator[tuple[int, int]]:
    """Along one axis, yield (pixel, offset) for every key that the query with this index sees."""
    standing = index * stride
    block_top = (standing // block) * block
    if offset_stride is None or offset_stride == stride:
        counted = standing
    else:
        earlier_in_block = [i for i in range(index) if i * stride >= block_top]
        counted = block_top + len(earlier_in_block) * offset_stride
    for pixel in range(block_top - halo, block_top + block + halo):
        if border == "mask" and (pixel < 0 or pixel >= length):
            continue
        if centered and abs(pixel - standing) > halo:
            continue
        yield pixel, pixel - counted


def position_logit(query: Tensor, row_entry: Tensor | None, column_entry: Tensor | None) -> Tensor | float:
    """Split tables read the query's channels in turn, full tables read all of them."""
    if row_entry is None or column_entry is None:
        return 0.0
    row_width, column_width = len(row_entry), len(column_entry)
    if row_width == column_width == len(query):
        return query.dot(row_entry) + query.dot(column_entry)
    assert row_width + column_width == len(query)
    return query[:row_width].dot(row_entry) + query[row_width:].dot(column_entry)


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
) -> Answer:
    batch, rows, columns, heads, width = key.shape
    blocks, halos, strides = pair(block_size), pair(halo_size), pair(stride)
    offset_strides = (None, None) if offset_stride is None else pair(offset_stride)
    factor = width**-0.5 if scale is None else scale
    query_rows = len(range(0, rows, strides[0]))
    query_columns = len(range(0, columns, strides[1]))
    axes = list(zip((rows, columns), blocks, halos, strides, offset_strides, strict=True))

    def keys_along(axis: int, index: int) -> list[tuple[int, int]]:
        length, block, halo, step, offset_step = axes[axis]
        return list(
            keys_of_query(
                index,
                length=length,
                block=block,
                halo=halo,
                stride=step,
                offset_stride=offset_step,
                border=border,
                centered=centered,
            )
        )

    outputs = []
    weights = torch.zeros(batch, query_rows, query_columns, heads, rows, columns, dtype=torch.float64)
    outside = torch.zeros(batch, query_rows, query_columns, heads, dtype=torch.float64)
    for b in range(batch):
        for i in range(query_rows):
            for j in range(query_columns):
                for n in range(heads):
                    q = query[b, i, j, n]
                    logits, values, places = [], [], []
                    for row, row_offset in keys_along(0, i):
                        for column, column_offset in keys_along(1, j):
                            inside = 0 <= row < rows and 0 <= column < columns
                            row_entry = column_entry = None
                            if row_embedding is not None and column_embedding is not None:
                                row_entry = row_embedding[row_offset + blocks[0] + halos[0] - 1]
                                column_entry = column_embedding[column_offset + blocks[1] + halos[1] - 1]
                            content = q.dot(key[b, row, column, n]) if inside else torch.zeros_like(q[0])
                            logits.append(factor * (content + position_logit(q, row_entry, column_entry)))
                            values.append(value[b, row, column, n] if inside else torch.zeros_like(value[b, 0, 0, n]))
                            places.append((row, column) if inside else None)
                    shares = torch.stack(logits).softmax(dim=0)
                    outputs.append(sum(share * v for share, v in zip(shares, values, strict=True)))
                    for share, place in zip(shares.tolist(), places, strict=True):
                        if place is None:
                            outside[b, i, j, n] += share
                        else:
                            weights[b, i, j, n, place[0], place[1]] += share
    output = torch.stack(outputs).reshape(batch, query_rows, query_columns, heads, value.shape[-1])
    return Answer(output, weights, outside)
