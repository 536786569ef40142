"""The backward pass in Triton: one kernel that stands at the queries, and one that stands at the keys.

Nothing is added to memory that another program adds to: each kernel computes the weights anew and writes its gradients
once, so their bits do not depend on the order in which programs run.
"""

import triton
import triton.language as tl

from halonet.ops.halo_attention.triton.tiles import (
    add_product,
    addresses,
    entries,
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
def gradient_by_entry(by_slot, place_of_query, axis: tl.constexpr, problem: tl.constexpr):
    """Sort a gradient [queries, slots] of the logits along one axis by entry of its table, [queries, entries]."""
    position = tl.arange(0, axis.entries)[None, :] - (axis.block - 1) + place_of_query[2][:, None]
    in_window = (position >= 0) & (position < axis.window)
    sorted_gradient = tl.gather(by_slot, position & (by_slot.shape[1] - 1), 1)
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
    heads,
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
    start = tl.program_id(0) * items
    for item in range(start, tl.minimum(start + items, count)):
        batch, block_row, block_column, head, part = locate(item, heads, rows, columns, parts)
        local = part * tile.queries + tl.arange(0, tile.queries)
        row, column, exists = queries_of(local, block_row, block_column, rows, columns, problem)
        q = load(query, batch, row[0], column[0], head, exists, problem.channels, problem.padded_channels)
        tables = load_tables(row_table, column_table, q, problem)
        rows_seen = visible(block_row, rows, problem.rows, problem.zeros)
        columns_seen = visible(block_column, columns, problem.columns, problem.zeros)
        logits = position_logits(q, tables, row, column, (0, 0), rows_seen, columns_seen, problem, tile.slots)
        o = load(output, batch, row[0], column[0], head, exists, problem.value_channels, problem.padded_value_channels)
        do = load(
            grad_output, batch, row[0], column[0], head, exists, problem.value_channels, problem.padded_value_channels
        )
        own = tl.sum(o.to(problem.accumulator) * do.to(problem.accumulator), 1)
        number = number_of(batch, row[0], column[0], head, heads, rows, columns)
        tl.store(delta + number, own, mask=exists)
        sums = tl.load(log_sum + number, mask=exists, other=0.0)

        dq = tl.zeros((tile.queries, problem.padded_channels), problem.accumulator)
        by_row = tl.zeros((tile.queries, tile.slots), problem.accumulator)
        by_column = tl.zeros((tile.queries, tile.slots), problem.accumulator)
        first, after = tiles_of_window(exists, row[1], block_row, rows, problem, tile)
        for index in range(first, after):
            row_position, column_position, key_row, key_column, key_exists = keys_of_tile(
                index, block_row, block_column, rows, columns, problem, tile
            )
            k = load(key, batch, key_row, key_column, head, key_exists, problem.channels, problem.padded_channels)
            v = load(
                value,
                batch,
                key_row,
                key_column,
                head,
                key_exists,
                problem.value_channels,
                problem.padded_value_channels,
            )
            in_row = ones(row_position, problem, tile.slots, q.dtype)
            in_column = ones(column_position, problem, tile.slots, q.dtype)
            scores = product(q, tl.trans(k), problem)
            scores = add_product(scores, logits[0], in_row, problem)
            scores = add_product(scores, logits[1], in_column, problem)
            weights = tl.exp2(scores * problem.unit - sums[:, None])
            by_weight = product(do, tl.trans(v), problem)
            slope = (weights * (by_weight - own[:, None])).to(q.dtype)
            dq = add_product(dq, slope, k, problem)
            if problem.has_tables:
                by_row = add_product(by_row, slope, tl.trans(in_row), problem)
                by_column = add_product(by_column, slope, tl.trans(in_column), problem)

        dq *= problem.scale
        if problem.has_tables:
            by_row = gradient_by_entry(by_row, row, problem.rows, problem).to(q.dtype)
            by_column = gradient_by_entry(by_column, column, problem.columns, problem).to(q.dtype)
            dq = add_product(dq, by_row, tables[0].to(q.dtype), problem)
            dq = add_product(dq, by_column, tables[1].to(q.dtype), problem)
            grad_rows = add_product(grad_rows, tl.trans(by_row), q, problem)
            grad_columns = add_product(grad_columns, tl.trans(by_column), q, problem)
        place_of_gradient = addresses(grad_query, batch, row[0], column[0], head, problem.padded_channels)
        mask = within(exists, problem.channels, problem.padded_channels)
        tl.store(place_of_gradient, dq.to(grad_query.data.dtype.element_ty), mask=mask)

    if problem.has_tables:
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
    heads,
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
    head = index % heads
    index //= heads
    first_column = index % column_tiles * tile.key_columns - column_shift
    index //= column_tiles
    first_row = index % row_tiles * tile.key_rows - row_shift
    batch = index // row_tiles
    n = tl.arange(0, tile.key_rows * tile.key_columns)
    key_row, key_column = first_row + n // tile.key_columns, first_column + n % tile.key_columns
    key_exists = (key_row >= 0) & (key_row < rows.size) & (key_column >= 0) & (key_column < columns.size)
    k = load(key, batch, key_row, key_column, head, key_exists, problem.channels, problem.padded_channels)
    v = load(value, batch, key_row, key_column, head, key_exists, problem.value_channels, problem.padded_value_channels)

    in_row = tl.trans(ones(n // tile.key_columns, problem, tile.slots, k.dtype))
    in_column = tl.trans(ones(n % tile.key_columns, problem, tile.slots, k.dtype))
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
        local = part * tile.queries + tl.arange(0, tile.queries)
        row, column, exists = queries_of(local, block_row, block_column, rows, columns, problem)
        q = load(query, batch, row[0], column[0], head, exists, problem.channels, problem.padded_channels)
        do = load(
            grad_output, batch, row[0], column[0], head, exists, problem.value_channels, problem.padded_value_channels
        )
        number = number_of(batch, row[0], column[0], head, heads, rows, columns)
        sums = tl.load(log_sum + number, mask=exists, other=0.0)
        own = tl.load(delta + number, mask=exists, other=0.0)
        window_row = block_row * problem.rows.block - problem.rows.halo
        window_column = block_column * problem.columns.block - problem.columns.halo
        logits = position_logits(
            q,
            tables,
            row,
            column,
            (first_row - window_row, first_column - window_column),
            (0, problem.rows.window),
            (0, problem.columns.window),
            problem,
            tile.slots,
        )
        scores = product(k, tl.trans(q), problem)
        scores = add_product(scores, in_row, tl.trans(logits[0]), problem)
        scores = add_product(scores, in_column, tl.trans(logits[1]), problem)
        weights = tl.exp2(scores * problem.unit - sums[None, :])
        by_weight = product(v, tl.trans(do), problem)
        slope = (weights * (by_weight - own[None, :])).to(k.dtype)
        of_values = product(weights.to(do.dtype), do, problem)
        of_keys = product(slope, q, problem)
        # What lies outside the window must take nothing, not even 0 times NaN.
        in_window = (key_row >= window_row) & (key_row < window_row + problem.rows.window)
        in_window &= (key_column >= window_column) & (key_column < window_column + problem.columns.window)
        dv += tl.where(in_window[:, None], of_values, 0.0)
        dk += tl.where(in_window[:, None], of_keys, 0.0)

    place_of_gradient = addresses(grad_key, batch, key_row, key_column, head, problem.padded_channels)
    mask = within(key_exists, problem.channels, problem.padded_channels)
    tl.store(place_of_gradient, (dk * problem.scale).to(grad_key.data.dtype.element_ty), mask=mask)
    place_of_gradient = addresses(grad_value, batch, key_row, key_column, head, problem.padded_value_channels)
    mask = within(key_exists, problem.value_channels, problem.padded_value_channels)
    tl.store(place_of_gradient, dv.to(grad_value.data.dtype.element_ty), mask=mask)
