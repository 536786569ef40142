"""The forward pass in Triton."""

import triton
import triton.language as tl

from halonet.ops.halo_attention.triton.tiles import (
    add_product,
    addresses,
    keys_of_tile,
    load,
    load_tables,
    locate,
    number_of,
    ones,
    position_logits,
    product,
    queries_of,
    tiles_of_window,
    visible,
    within,
)


@triton.jit
def attention_forward(
    query,
    key,
    value,
    row_table,
    column_table,
    output,
    log_sum,
    heads,
    rows,
    columns,
    problem: tl.constexpr,
    tile: tl.constexpr,
    parts: tl.constexpr,
    save: tl.constexpr,
):
    """Attend with one tile of queries of one block and head; the softmax is brought up to date with every key tile."""
    batch, block_row, block_column, head, part = locate(tl.program_id(0), heads, rows, columns, parts)
    local = part * tile.queries + tl.arange(0, tile.queries)
    row, column, exists = queries_of(local, block_row, block_column, rows, columns, problem)
    q = load(query, batch, row[0], column[0], head, exists, problem.channels, problem.padded_channels)
    tables = load_tables(row_table, column_table, q, problem)
    rows_seen = visible(block_row, rows, problem.rows, problem.zeros)
    columns_seen = visible(block_column, columns, problem.columns, problem.zeros)
    logits = position_logits(q, tables, row, column, (0, 0), rows_seen, columns_seen, problem, tile.slots)

    # Between what is hidden and what is real: a tile in which a query sees nothing then adds nothing.
    highest = tl.full((tile.queries,), problem.hidden * problem.one / 2, problem.accumulator)
    # A query that does not exist may see no tile at all: its sum must not be 0.
    total = tl.where(exists, 0.0, 1.0).to(problem.accumulator)
    mixed = tl.zeros((tile.queries, problem.padded_value_channels), problem.accumulator)
    first, after = tiles_of_window(exists, row[1], block_row, rows, problem, tile)
    for index in range(first, after):
        row_position, column_position, key_row, key_column, key_exists = keys_of_tile(
            index, block_row, block_column, rows, columns, problem, tile
        )
        k = load(key, batch, key_row, key_column, head, key_exists, problem.channels, problem.padded_channels)
        scores = product(q, tl.trans(k), problem)
        in_row = ones(row_position, problem, tile.slots, q.dtype)
        in_column = ones(column_position, problem, tile.slots, q.dtype)
        scores = add_product(scores, logits[0], in_row, problem)
        scores = add_product(scores, logits[1], in_column, problem)
        now_highest = tl.maximum(highest, tl.max(scores, 1))
        weights = tl.exp2(scores * problem.unit - (now_highest * problem.unit)[:, None])
        kept = tl.exp2((highest - now_highest) * problem.unit)
        total = total * kept + tl.sum(weights, 1)
        v = load(
            value, batch, key_row, key_column, head, key_exists, problem.value_channels, problem.padded_value_channels
        )
        mixed = add_product(mixed * kept[:, None], weights.to(v.dtype), v, problem)
        highest = now_highest

    mixed *= (1 / total)[:, None]
    place_of_output = addresses(output, batch, row[0], column[0], head, problem.padded_value_channels)
    tl.store(
        place_of_output,
        mixed.to(output.data.dtype.element_ty),
        mask=within(exists, problem.value_channels, problem.padded_value_channels),
    )
    if save:
        number = number_of(batch, row[0], column[0], head, heads, rows, columns)
        tl.store(log_sum + number, highest * problem.unit + tl.log2(total), mask=exists)
