"""What the Triton kernels have in common: who stands where, what is loaded, and the logits of a tile.

A program takes a tile of the queries of one block and one head, and goes through the keys of its window tile by tile.
Along an axis a key is named by its position in the window, 0 to b + 2h - 1, a query by its pixel counted from the top
of its block. Scores, [queries, keys], never leave the chip.

Position logits and masks enter as two more products, one for the rows and one for the columns. A query has a slot for
every row of the window, [queries, slots], gathered from the product of query and table. A matrix [slots, keys] of ones
says which row a key lies in. What a query may not see has `hidden` in its slot, and costs nothing more.
"""

import triton
import triton.language as tl


@triton.jit
def product(left, right, problem: tl.constexpr):
    """Multiply matrices."""
    return tl.dot(left, right, input_precision=problem.precision, out_dtype=problem.accumulator)


@triton.jit
def add_product(total, left, right, problem: tl.constexpr):
    """Multiply matrices and add the result to `total`."""
    return tl.dot(left, right, total, input_precision=problem.precision, out_dtype=problem.accumulator)


@triton.jit
def locate(index, rows, columns, problem: tl.constexpr, parts: tl.constexpr):
    """Batch, block row, block column, head and tile of a program: heads follow each other, they share cache lines."""
    head = index % problem.heads
    index //= problem.heads
    part = index % parts
    index //= parts
    block_column = index % columns.num_blocks
    index //= columns.num_blocks
    return index // rows.num_blocks, index % rows.num_blocks, block_column, head, part


@triton.jit
def first_query(block, axis: tl.constexpr):
    """Index of the first query of a block along one axis."""
    return (block * axis.block + axis.stride - 1) // axis.stride


@triton.jit
def place(local, block, extent, axis: tl.constexpr):
    """Pixel in the block, counted offset and existence of the `local`-th queries of a block along one axis."""
    index = first_query(block, axis) + local
    pixel = index * axis.stride - block * axis.block
    if axis.offset_stride == axis.stride:
        offset = pixel
    else:
        offset = local * axis.offset_stride
    return pixel, offset, (pixel < axis.block) & (index < extent.num_queries)


@triton.jit
def visible(block, extent, axis: tl.constexpr, zeros: tl.constexpr):
    """First and after-last position of a block's window that holds keys."""
    top = block * axis.block - axis.halo
    if zeros:  # both ways must give tensors
        first, after = top * 0, top * 0 + axis.window
    else:
        first, after = tl.maximum(-top, 0), tl.minimum(extent.size - top, axis.window)
    return first, after


@triton.jit
def corner_of_queries(batch, block_row, block_column, head, problem: tl.constexpr):
    """Batch, row, column and head of a block's first query, as `addresses` takes them."""
    return batch, first_query(block_row, problem.rows), first_query(block_column, problem.columns), head


@triton.jit
def corner_of_window(batch, block_row, block_column, head, problem: tl.constexpr):
    """Batch, row, column and head of the first key of a block's window, which may lie outside the image."""
    row = block_row * problem.rows.block - problem.rows.halo
    return batch, row, block_column * problem.columns.block - problem.columns.halo, head


@triton.jit
def numbers(data, corner, row, column, rows, columns, problem: tl.constexpr):
    """Pointers to what has one number for each query and head, as `addresses` names them."""
    start = (corner[0].to(tl.int64) * rows.num_queries + corner[1]) * columns.num_queries + corner[2]
    offset = row.to(problem.offset) * columns.num_queries + column
    return data + (start * problem.heads + corner[3]) + offset * problem.heads


@triton.jit
def addresses(image, corner, row, column, padded: tl.constexpr, problem: tl.constexpr):
    """Pointers [pixels, channels] to the channels of some pixels.

    `corner` is batch, row, column and head of a pixel; `row` and `column` of the others are counted from it.
    """
    strides = image.strides
    start = image.data + corner[0].to(tl.int64) * strides[0] + corner[3].to(tl.int64) * strides[3]
    start += corner[1].to(tl.int64) * strides[1] + corner[2].to(tl.int64) * strides[2]
    pixel = row.to(problem.offset) * strides[1] + column.to(problem.offset) * strides[2]
    return start + (pixel[:, None] + (tl.arange(0, padded).to(problem.offset) * strides[4])[None, :])


@triton.jit
def within(exists, channels: tl.constexpr, padded: tl.constexpr):
    """Mask [pixels, channels] of what is in memory."""
    mask = exists[:, None]
    if padded != channels:
        mask = mask & (tl.arange(0, padded) < channels)[None, :]
    return mask


@triton.jit
def load_queries(image, corner, row, column, exists, problem: tl.constexpr):
    """Load pixels of one head of what has as many channels as queries, [pixels, padded], and zeros for no pixel."""
    pointers = addresses(image, corner, row, column, problem.padded_channels, problem)
    return tl.load(pointers, mask=within(exists, problem.channels, problem.padded_channels), other=0.0)


@triton.jit
def load_values(image, corner, row, column, exists, problem: tl.constexpr):
    """As `load_queries`, for what has as many channels as values."""
    pointers = addresses(image, corner, row, column, problem.padded_value_channels, problem)
    return tl.load(pointers, mask=within(exists, problem.value_channels, problem.padded_value_channels), other=0.0)


@triton.jit
def store_queries(image, corner, row, column, exists, numbers, problem: tl.constexpr):
    """Store pixels of one head, as `load_queries` reads them."""
    pointers = addresses(image, corner, row, column, problem.padded_channels, problem)
    mask = within(exists, problem.channels, problem.padded_channels)
    tl.store(pointers, numbers.to(image.data.dtype.element_ty), mask=mask)


@triton.jit
def store_values(image, corner, row, column, exists, numbers, problem: tl.constexpr):
    """Store pixels of one head, as `load_values` reads them."""
    pointers = addresses(image, corner, row, column, problem.padded_value_channels, problem)
    mask = within(exists, problem.value_channels, problem.padded_value_channels)
    tl.store(pointers, numbers.to(image.data.dtype.element_ty), mask=mask)


@triton.jit
def entries(axis: tl.constexpr, first_channel, padded_channels: tl.constexpr):
    """Places in a table's memory, and mask, of its entries as [padded entries, padded channels of the query]."""
    entry = tl.arange(0, axis.entries)[:, None]
    channel = tl.arange(0, padded_channels)[None, :] - first_channel
    mask = (entry < axis.table_length) & (channel >= 0) & (channel < axis.table_width)
    return entry * axis.table_width + channel, mask


@triton.jit
def load_tables(row_table, column_table, query, problem: tl.constexpr):
    """Load both tables, with zeros in the channels that they do not read; without any, anything."""
    if problem.has_tables:
        place_in_table, mask = entries(problem.rows, 0, problem.padded_channels)
        of_rows = tl.load(row_table + place_in_table, mask=mask, other=0.0)
        first_channel = problem.channels - problem.columns.table_width
        place_in_table, mask = entries(problem.columns, first_channel, problem.padded_channels)
        of_columns = tl.load(column_table + place_in_table, mask=mask, other=0.0)
    else:
        of_rows, of_columns = query, query
    return of_rows, of_columns


@triton.jit
def queries_of(part, block_row, block_column, rows, columns, problem: tl.constexpr, tile: tl.constexpr):
    """Rows and columns of a tile's queries, counted from the block's first; what `place` says of them; existence."""
    local = part * tile.queries + tl.arange(0, tile.queries)
    row, column = local // problem.columns.max_queries, local % problem.columns.max_queries
    along_rows = place(row, block_row, rows, problem.rows)
    along_columns = place(column, block_column, columns, problem.columns)
    return row, column, along_rows, along_columns, along_rows[2] & along_columns[2]


@triton.jit
def logits_along(
    query, table, place_of_query, start, seen, axis: tl.constexpr, problem: tl.constexpr, slots: tl.constexpr
):
    """Logits [slots, queries] along one axis, the slots beginning at a position of the window."""
    position = (start + tl.arange(0, slots))[:, None]
    visible_here = (position >= seen[0]) & (position < seen[1])
    if problem.centered:
        distance = position - axis.halo - place_of_query[0][None, :]
        visible_here = visible_here & (distance <= axis.halo) & (distance >= -axis.halo)
    if problem.has_tables:
        rounded = table.to(query.dtype)
        of_entries = product(rounded, tl.trans(query), problem)
        if table.dtype != query.dtype:
            # What rounding a table of fp32 took away, as a second number of the query's dtype.
            rest = (table - rounded.to(table.dtype)).to(query.dtype)
            of_entries = add_product(of_entries, rest, tl.trans(query), problem)
        entry = position + (axis.block - 1) - place_of_query[1][None, :]
        # Out of the table's range lies only what is not seen.
        logits = tl.gather(of_entries, entry & (axis.entries - 1), 0) * (1 / problem.one)
    else:
        logits = tl.zeros((slots, query.shape[0]), problem.accumulator)
    return tl.where(visible_here, logits, problem.hidden).to(query.dtype)


@triton.jit
def position_logits(
    query, tables, row, column, start, seen_rows, seen_columns, problem: tl.constexpr, slots: tl.constexpr
):
    """Logits [slots, queries] of the rows and of the columns from a place in the window onwards."""
    along_rows = logits_along(query, tables[0], row, start[0], seen_rows, problem.rows, problem, slots)
    return along_rows, logits_along(query, tables[1], column, start[1], seen_columns, problem.columns, problem, slots)


@triton.jit
def ones(position, problem: tl.constexpr, slots: tl.constexpr, dtype: tl.constexpr):
    """[slots, keys]: `one` in the slot of each key's position. The way through fp32 is for Triton's interpreter."""
    in_slot = tl.arange(0, slots)[:, None] == position[None, :]
    return tl.where(in_slot, problem.one, 0.0).to(tl.float32).to(dtype)


@triton.jit
def tiles_of_window(part, block_row, block_column, rows, columns, problem: tl.constexpr, tile: tl.constexpr):
    """Number of the first and after-last key tile that a tile of queries needs; none where no query exists."""
    first, after = visible(block_row, rows, problem.rows, problem.zeros)
    upper = place(part * tile.queries // problem.columns.max_queries, block_row, rows, problem.rows)
    if problem.centered:
        last = tl.minimum((part + 1) * tile.queries, problem.rows.max_queries * problem.columns.max_queries) - 1
        lower = place(last // problem.columns.max_queries, block_row, rows, problem.rows)
        first = tl.maximum(first, upper[0])
        after = tl.minimum(after, lower[0] + 2 * problem.rows.halo + 1)
    first = first // tile.key_rows * tile.tiles_across
    after = (after + tile.key_rows - 1) // tile.key_rows * tile.tiles_across
    return first, tl.where(upper[2] & place(0, block_column, columns, problem.columns)[2], after, first)


@triton.jit
def keys_of_tile(index, corner, rows, columns, problem: tl.constexpr, tile: tl.constexpr):
    """Positions in the window, and existence, of the keys of a tile; `corner` is the window's."""
    n = tl.arange(0, tile.key_rows * tile.key_columns)
    row = index // tile.tiles_across * tile.key_rows + n // tile.key_columns
    column = n % tile.key_columns
    if tile.tiles_across > 1:
        column += index % tile.tiles_across * tile.key_columns
    in_window = (row < problem.rows.window) & (column < problem.columns.window)
    return row, column, in_window & in_image(corner[1] + row, corner[2] + column, rows, columns)


@triton.jit
def in_image(row, column, rows, columns):
    """Whether there are such pixels."""
    return (row >= 0) & (row < rows.size) & (column >= 0) & (column < columns.size)
