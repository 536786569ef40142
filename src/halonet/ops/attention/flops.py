"""Floating-point operations of the fused operators, for `torch.utils.flop_counter`: two for a multiply-add.

Counted as the paper's Table 1 counts, and `halonet.models.count_macs`: (b + 2h)^2 keys for each query, padding
included, position logits not. The backward counts five products, as PyTorch does for its own fused attention: the
scores once more, and the gradients of weights, values, queries and keys.

The functions take the operators' arguments, with a tensor's shape in place of the tensor.
"""

from collections.abc import Sequence
from typing import Any

Shape = Sequence[int]


def forward_flops(
    query: Shape, key: Shape, value: Shape, row: Any, column: Any, numbers: Sequence[int], *_: Any, **__: Any
) -> int:
    """Count the products of queries with keys, and of weights with values."""
    return 2 * _pairs(query, numbers) * (query[4] + value[4])


def backward_flops(
    grad_output: Shape,
    query: Shape,
    key: Shape,
    value: Shape,
    row: Any,
    column: Any,
    output: Shape,
    log_sum: Shape,
    numbers: Sequence[int],
    *_: Any,
    **__: Any,
) -> int:
    """Count the five products of the backward."""
    return 2 * _pairs(query, numbers) * (3 * query[4] + 2 * value[4])


def packed_forward_flops(
    packed: Shape,
    query: Shape | None,
    row: Any,
    column: Any,
    num_heads: int,
    key_channels: int,
    value_channels: int,
    numbers: Sequence[int],
    *_: Any,
    **__: Any,
) -> int:
    """`forward_flops` of packed queries, keys and values."""
    pairs = _pairs((*packed[:3], num_heads) if query is None else query, numbers)
    return 2 * pairs * (key_channels + value_channels) // num_heads


def packed_backward_flops(
    grad_output: Shape,
    packed: Shape,
    query: Shape | None,
    row: Any,
    column: Any,
    num_heads: int,
    key_channels: int,
    value_channels: int,
    output: Shape,
    log_sum: Shape,
    numbers: Sequence[int],
    *_: Any,
    **__: Any,
) -> int:
    """`backward_flops` of packed queries, keys and values."""
    return 2 * _pairs(output, numbers) * (3 * key_channels + 2 * value_channels) // num_heads


def _pairs(query: Shape, numbers: Sequence[int]) -> int:
    """Queries, over batch and heads, times the keys of a window."""
    block_rows, block_columns, halo_rows, halo_columns = numbers[:4]
    batch, rows, columns, heads = query[:4]
    return batch * rows * columns * heads * (block_rows + 2 * halo_rows) * (block_columns + 2 * halo_columns)
