"""The forward pass in Triton."""

import triton
import triton.language as tl

from halonet.ops.attention.triton.tiles import (
    add_product,
    corner_of_queries,
    corner_of_window,
    keys_of_tile,
    load_queries,
    load_tables,
    load_values,
    locate,
    numbers,
    ones,
    position_logits,
    product,
    queries_of,
    store_values,
    tiles_of_window,
    visible,
)


@triton.jit
def add_sums(total, weights, problem: tl.constexpr):
    """Add each query's weights to its total, [queries, `sums`], every column of which says the same.

    A product with ones takes the tensor cores, and half precision's products are exact sums of what multiplies the
    values. The sums of wider numbers would not be: they are added as they are.
    """
    if problem.sums > 1:
        of_ones = tl.full((weights.shape[1], problem.sums), 1.0, weights.dtype)
        total = add_product(total, weights, of_ones, problem)
    else:
        total += tl.sum(weights, 1)[:, None]
    return total


@triton.jit
def attention_forward(
    query,
    key,
    value,
    row_table,
    column_table,
    output,
    log_sum,
    rows,
    columns,
    problem: tl.constexpr,
    tile: tl.constexpr,
    parts: tl.constexpr,
    save: tl.constexpr,
):
    """Attend with one tile of queries of one block and head; the softmax is brought up to date with every key tile."""
    batch, block_row, block_column, head, part = locate(tl.program_id(0), rows, columns, problem, parts)
    corner = corner_of_queries(batch, block_row, block_column, head, problem)
    row, column, along_rows, along_columns, exists = queries_of(
        part, block_row, block_column, rows, columns, problem, tile
    )
    q = load_queries(query, corner, row, column, exists, problem)
    tables = load_tables(row_table, column_table, q, problem)
    rows_seen = visible(block_row, rows, problem.rows, problem.zeros)
    columns_seen = visible(block_column, columns, problem.columns, problem.zeros)
    of_rows, of_columns = position_logits(
        q, tables, along_rows, along_columns, (0, 0), rows_seen, columns_seen, problem, tile.slots
    )
    of_rows, of_columns = tl.trans(of_rows), tl.trans(of_columns)
    if tile.tiles_across == 1:  # all tiles have the same columns
        n = tl.arange(0, tile.key_rows * tile.key_columns)
        start = product(of_columns, ones(n % tile.key_columns, problem, tile.slots, q.dtype), problem)
    else:
        start = tl.zeros((tile.queries, tile.key_rows * tile.key_columns), problem.accumulator)

    # Scores are in units of log2(e) from here on. Between what is hidden and what is real: a tile in which a query
    # sees nothing then adds nothing.
    highest = tl.full((tile.queries,), problem.hidden * problem.one * problem.unit / 2, problem.accumulator)
    total = tl.zeros((tile.queries, problem.sums), problem.accumulator)
    mixed = tl.zeros((tile.queries, problem.padded_value_channels), problem.accumulator)
    window = corner_of_window(batch, block_row, block_column, head, problem)
    first, after = tiles_of_window(part, block_row, block_column, rows, columns, problem, tile)
    for index in range(first, after):
        key_row, key_column, key_exists = keys_of_tile(index, window, rows, columns, problem, tile)
        k = load_queries(key, window, key_row, key_column, key_exists, problem)
        scores = add_product(start, q, tl.trans(k), problem)
        scores = add_product(scores, of_rows, ones(key_row, problem, tile.slots, q.dtype), problem)
        if tile.tiles_across > 1:
            scores = add_product(scores, of_columns, ones(key_column, problem, tile.slots, q.dtype), problem)
        now_highest = tl.maximum(highest, tl.max(scores, 1) * problem.unit)
        weights = tl.exp2(scores * problem.unit - now_highest[:, None])
        kept = tl.exp2(highest - now_highest)[:, None]
        v = load_values(value, window, key_row, key_column, key_exists, problem)
        rounded = weights.to(v.dtype)
        total = add_sums(total * kept, rounded, problem)
        mixed = add_product(mixed * kept, rounded, v, problem)
        highest = now_highest

    # A query that does not exist may have seen no tile at all.
    total = tl.where(exists, tl.sum(total, 1) / problem.sums, 1.0)
    mixed *= (1 / total)[:, None]
    store_values(output, corner, row, column, exists, mixed, problem)
    if save:
        pointers = numbers(log_sum, corner, row, column, rows, columns, problem)
        tl.store(pointers, highest + tl.log2(total), mask=exists)
