"""The backward pass in Triton: one kernel that stands at the queries, and one that stands at the keys.

Nothing is added to memory that another program adds to: each kernel computes the weights anew and writes its gradients
once, so their bits do not depend on the order in which programs run.
"""

import triton
import triton.language as tl

from halonet.ops.attention.triton.tiles import (
    add_product,
    corner_of_queries,
    corner_of_window,
    entries,
    in_image,
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
    store_queries,
    store_values,
    tiles_of_window,
    visible,
)


@triton.jit
def gradient_by_entry(by_slot, place_of_query, axis: tl.constexpr, problem: tl.constexpr):
    """Sort a gradient [queries, slots] of the logits along one axis by entry of its table, [entries, queries]."""
    position = tl.arange(0, axis.entries)[:, None] - (axis.block - 1) + place_of_query[1][None, :]
    in_window = (position >= 0) & (position < axis.window)
    sorted_gradient = tl.gather(tl.trans(by_slot), position & (by_slot.shape[1] - 1), 0)
    return tl.where(in_window, sorted_gradient * (problem.scale / problem.one), 0.0)


@triton.jit
def gradient_of_queries(
    query,
    key,
    value,
    row_table,
    column_table,
    output,
    log_sum,
    grad_output,
    grad_query,
    grad_row_table,
    grad_column_table,
    delta,
    rows,
    columns,
    count,
    items,
    problem: tl.constexpr,
    tile: tl.constexpr,
    parts: tl.constexpr,
):
    """Gradients of the queries of `items` tiles, one after the other, and this program's part of those of the tables.

    It also leaves `delta`, each query's product of output and gradient, for the kernel that follows.
    """
    grad_rows = tl.zeros((problem.rows.entries, problem.padded_channels), problem.accumulator)
    grad_columns = tl.zeros((problem.columns.entries, problem.padded_channels), problem.accumulator)
    channel = tl.arange(0, problem.padded_channels)[None, :]
    first_item = tl.program_id(0) * items
    # What is the same for all items costs more registers than it saves instructions.
    for item in tl.range(first_item, tl.minimum(first_item + items, count), disable_licm=True):
        batch, block_row, block_column, head, part = locate(item, rows, columns, problem, parts)
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
        o = load_values(output, corner, row, column, exists, problem)
        do = load_values(grad_output, corner, row, column, exists, problem)
        own = tl.sum(o.to(problem.accumulator) * do.to(problem.accumulator), 1)
        tl.store(numbers(delta, corner, row, column, rows, columns, problem), own, mask=exists)
        sums = tl.load(numbers(log_sum, corner, row, column, rows, columns, problem), mask=exists, other=0.0)
        minus_own = tl.broadcast_to(-own[:, None], (tile.queries, tile.key_rows * tile.key_columns))

        dq = tl.zeros((tile.queries, problem.padded_channels), problem.accumulator)
        by_row = tl.zeros((tile.queries, tile.slots), problem.accumulator)
        by_column = tl.zeros((tile.queries, tile.slots), problem.accumulator)
        window = corner_of_window(batch, block_row, block_column, head, problem)
        first, after = tiles_of_window(part, block_row, block_column, rows, columns, problem, tile)
        for index in range(first, after):
            key_row, key_column, key_exists = keys_of_tile(index, window, rows, columns, problem, tile)
            k = load_queries(key, window, key_row, key_column, key_exists, problem)
            v = load_values(value, window, key_row, key_column, key_exists, problem)
            in_row = ones(key_row, problem, tile.slots, q.dtype)
            in_column = ones(key_column, problem, tile.slots, q.dtype)
            scores = product(q, tl.trans(k), problem)
            scores = add_product(scores, of_rows, in_row, problem)
            scores = add_product(scores, of_columns, in_column, problem)
            weights = tl.exp2(scores * problem.unit - sums[:, None])
            slope = (weights * add_product(minus_own, do, tl.trans(v), problem)).to(q.dtype)
            dq = add_product(dq, slope, k, problem)
            if problem.has_tables:
                by_row = add_product(by_row, slope, tl.trans(in_row), problem)
                by_column = add_product(by_column, slope, tl.trans(in_column), problem)

        dq *= problem.scale
        if problem.has_tables:
            tables = load_tables(row_table, column_table, q, problem)
            by_row = gradient_by_entry(by_row, along_rows, problem.rows, problem).to(q.dtype)
            by_column = gradient_by_entry(by_column, along_columns, problem.columns, problem).to(q.dtype)
            dq = add_product(dq, tl.trans(by_row), tables[0].to(q.dtype), problem)
            dq = add_product(dq, tl.trans(by_column), tables[1].to(q.dtype), problem)
            if problem.split:
                of_rows = tl.where(channel < problem.rows.table_width, q, 0.0).to(q.dtype)
                of_columns = tl.where(channel >= problem.channels - problem.columns.table_width, q, 0.0).to(q.dtype)
                grad_rows = add_product(grad_rows, by_row, of_rows, problem)
                grad_rows = add_product(grad_rows, by_column, of_columns, problem)
            else:
                grad_rows = add_product(grad_rows, by_row, q, problem)
                grad_columns = add_product(grad_columns, by_column, q, problem)
        store_queries(grad_query, corner, row, column, exists, dq, problem)

    if problem.has_tables:
        if problem.split:
            grad_columns = grad_rows
        program = tl.program_id(0).to(tl.int64)
        place_in_table, mask = entries(problem.rows, 0, problem.padded_channels)
        start_of_part = grad_row_table + program * (problem.rows.table_length * problem.rows.table_width)
        tl.store(start_of_part + place_in_table, grad_rows, mask=mask)
        first_channel = problem.channels - problem.columns.table_width
        place_in_table, mask = entries(problem.columns, first_channel, problem.padded_channels)
        start_of_part = grad_column_table + program * (problem.columns.table_length * problem.columns.table_width)
        tl.store(start_of_part + place_in_table, grad_columns, mask=mask)


@triton.jit
def blocks_that_see(first_pixel, pixels: tl.constexpr, extent, axis: tl.constexpr):
    """First and after-last block whose window holds one of some neighboring pixels."""
    first = tl.maximum(first_pixel - axis.halo, 0) // axis.block
    after = (first_pixel + (pixels - 1 + axis.halo)) // axis.block + 1
    return first, tl.minimum(after, extent.num_blocks)


@triton.jit
def gradient_of_keys(
    query,
    key,
    value,
    row_table,
    column_table,
    log_sum,
    delta,
    grad_output,
    grad_key,
    grad_value,
    rows,
    columns,
    row_shift,
    column_shift,
    row_tiles,
    column_tiles,
    problem: tl.constexpr,
    tile: tl.constexpr,
    parts: tl.constexpr,
):
    """Gradients of a tile of keys and values of one head, from every block whose window meets the tile.

    A tile need not begin where a block does: shifted by half a block it meets fewer windows. Everything is laid out as
    [keys, queries].
    """
    index = tl.program_id(0)
    head = index % problem.heads
    index //= problem.heads
    first_column = index % column_tiles * tile.key_columns - column_shift
    index //= column_tiles
    first_row = index % row_tiles * tile.key_rows - row_shift
    batch = index // row_tiles
    corner = (batch, first_row, first_column, head)
    n = tl.arange(0, tile.key_rows * tile.key_columns)
    key_row, key_column = n // tile.key_columns, n % tile.key_columns
    key_exists = in_image(first_row + key_row, first_column + key_column, rows, columns)
    k = load_queries(key, corner, key_row, key_column, key_exists, problem)
    v = load_values(value, corner, key_row, key_column, key_exists, problem)

    in_row = tl.trans(ones(key_row, problem, tile.slots, k.dtype))
    in_column = tl.trans(ones(key_column, problem, tile.slots, k.dtype))
    tables = load_tables(row_table, column_table, k, problem)

    dk = tl.zeros((tile.key_rows * tile.key_columns, problem.padded_channels), problem.accumulator)
    dv = tl.zeros((tile.key_rows * tile.key_columns, problem.padded_value_channels), problem.accumulator)
    row_block, after_row_block = blocks_that_see(first_row, tile.key_rows, rows, problem.rows)
    column_block, after_column_block = blocks_that_see(first_column, tile.key_columns, columns, problem.columns)
    blocks_of_a_row = (after_column_block - column_block) * parts
    for item in range((after_row_block - row_block) * blocks_of_a_row):
        part = item % parts
        block_row = row_block + item // blocks_of_a_row
        block_column = column_block + item % blocks_of_a_row // parts
        of_block = corner_of_queries(batch, block_row, block_column, head, problem)
        row, column, along_rows, along_columns, exists = queries_of(
            part, block_row, block_column, rows, columns, problem, tile
        )
        q = load_queries(query, of_block, row, column, exists, problem)
        do = load_values(grad_output, of_block, row, column, exists, problem)
        sums = tl.load(numbers(log_sum, of_block, row, column, rows, columns, problem), mask=exists, other=0.0)
        own = tl.load(numbers(delta, of_block, row, column, rows, columns, problem), mask=exists, other=0.0)
        # Where the tile begins in the block's window; it may begin before it.
        window = corner_of_window(batch, block_row, block_column, head, problem)
        row_position, column_position = first_row - window[1], first_column - window[2]
        of_rows, of_columns = position_logits(
            q,
            tables,
            along_rows,
            along_columns,
            (row_position, column_position),
            (0, problem.rows.window),
            (0, problem.columns.window),
            problem,
            tile.slots,
        )
        scores = product(k, tl.trans(q), problem)
        scores = add_product(scores, in_row, of_rows, problem)
        scores = add_product(scores, in_column, of_columns, problem)
        weights = tl.exp2(scores * problem.unit - sums[None, :])
        by_weight = product(v, tl.trans(do), problem)
        slope = (weights * (by_weight - own[None, :])).to(k.dtype)
        of_values = product(weights.to(do.dtype), do, problem)
        of_keys = product(slope, q, problem)
        # What lies outside the window must take nothing, not even 0 times NaN.
        in_window = (row_position + key_row >= 0) & (row_position + key_row < problem.rows.window)
        in_window &= (column_position + key_column >= 0) & (column_position + key_column < problem.columns.window)
        dv += tl.where(in_window[:, None], of_values, 0.0)
        dk += tl.where(in_window[:, None], of_keys, 0.0)

    store_queries(grad_key, corner, key_row, key_column, key_exists, dk * problem.scale, problem)
    store_values(grad_value, corner, key_row, key_column, key_exists, dv, problem)
