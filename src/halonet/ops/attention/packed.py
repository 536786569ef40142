"""Queries, keys and values packed in one tensor, as a layer's projection makes them.

The projection's backward needs their gradients packed too. A fused backend that takes the packed tensor returns its
gradient without a copy.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Packed(NamedTuple):
    """The output of a projection: queries, keys and values; or keys and values, with the queries in their own tensor.

    Attributes:
        tensor: [batch, H, W, channels], the channels of all heads of one kind before those of the next.
        query: [batch, Hq, Wq, heads, d_qk] if `tensor` holds keys and values only, else None.
        num_heads: Heads.
        key_channels: Channels of the keys over all heads, heads * d_qk.
        value_channels: Channels of the values over all heads, heads * d_v.
    """

    tensor: Tensor
    query: Tensor | None
    num_heads: int
    key_channels: int
    value_channels: int


def unpack(packed: Packed) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values as views [batch, rows, columns, heads, channels]."""
    sizes = [packed.key_channels, packed.value_channels]
    if packed.query is None:
        sizes.insert(0, packed.key_channels)
    # Every call of a layer does this: `Tensor.split` takes a microsecond more.
    parts = [part.unflatten(-1, (packed.num_heads, -1)) for part in torch.split_with_sizes(packed.tensor, sizes, -1)]
    query = parts[0] if packed.query is None else packed.query
    return query, parts[-2], parts[-1]
