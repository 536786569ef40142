"""Floating-point operations of the fused operators, for `torch.utils.flop_counter`: two for a multiply-add.

Counted as the paper's Table 1 counts, and `halonet.models.count_macs`: (b + 2h)^2 keys for each query, padding
included, position logits not. The backward counts five products, as PyTorch does for its own fused attention: the
scores once more, and the gradients of weights, values, queries and keys.
"""

from collections.abc import Sequence
from typing import Any

Shape = Sequence[int]


def forward_flops(
    query: Shape, key: Shape, value: Shape, row: Any, column: Any, numbers: Sequence[int], *_: Any, **__: Any
) -> int:
    """Count the products of queries with keys, and of weights with values.

    Args:
        query: Shape [batch, Hq, Wq, heads, d_qk].
        key: Shape [batch, H, W, heads, d_qk].
        value: Shape [batch, H, W, heads, d_v].
        row: Not counted, like the other table.
        column: Not counted.
        numbers: The geometry as the operators take it: block, halo, ... (rows, columns).
    """
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
    """Count the five products of the backward.

    Args:
        grad_output: Shape of the output.
        query: As in `forward_flops`.
        key: Likewise.
        value: Likewise.
        row: Not counted.
        column: Not counted.
        output: Shape of the output.
        log_sum: Not counted.
        numbers: As in `forward_flops`.
    """
    return 2 * _pairs(query, numbers) * (3 * query[4] + 2 * value[4])


def _pairs(query: Shape, numbers: Sequence[int]) -> int:
    """Queries, over batch and heads, times the keys of a window."""
    block_rows, block_columns, halo_rows, halo_columns = numbers[:4]
    batch, rows, columns, heads = query[:4]
    return batch * rows * columns * heads * (block_rows + 2 * halo_rows) * (block_columns + 2 * halo_columns)
