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
def locate(index, heads, rows, columns, parts: tl.constexpr):
    """Batch, block row, block column, head and tile of a program: heads follow each other, they share cache lines."""
    head = index % heads
    index //= heads
    part = index % parts
    index //= parts
    block_column = index % columns.num_blocks
    index //= columns.num_blocks
    return index // rows.num_blocks, index % rows.num_blocks, block_column, head, part


@triton.jit
def place(local, block, extent, axis: tl.constexpr):
    """Index, pixel, counted offset and existence of the `local`-th queries of a block along one axis."""
    top = block * axis.block
    index = (top + axis.stride - 1) // axis.stride + local
    pixel = index * axis.stride - top
    if axis.offset_stride == axis.stride:
        offset = pixel
    else:
        offset = local * axis.offset_stride
    return index, pixel, offset, (pixel < axis.block) & (index < extent.num_queries)


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
def number_of(batch, row, column, head, heads, rows, columns):
    """Place of queries in what has one number for each query and head."""
    return ((batch.to(tl.int64) * rows.num_queries + row) * columns.num_queries + column) * heads + head


@triton.jit
def addresses(image, batch, row, column, head, padded: tl.constexpr):
    """Pointers [pixels, channels] to the channels of some pixels."""
    start = image.data + batch.to(tl.int64) * image.strides[0] + head.to(tl.int64) * image.strides[3]
    pixel = row.to(tl.int64) * image.strides[1] + column.to(tl.int64) * image.strides[2]
    return start + pixel[:, None] + (tl.arange(0, padded).to(tl.int64) * image.strides[4])[None, :]


@triton.jit
def within(exists, channels: tl.constexpr, padded: tl.constexpr):
    """Mask [pixels, channels] of what is in memory."""
    mask = exists[:, None]
    if padded != channels:
        mask = mask & (tl.arange(0, padded) < channels)[None, :]
    return mask


@triton.jit
def load(image, batch, row, column, head, exists, channels: tl.constexpr, padded: tl.constexpr):
    """Load pixels of one head, [pixels, padded channels], with zeros where nothing exists."""
    mask = within(exists, channels, padded)
    return tl.load(addresses(image, batch, row, column, head, padded), mask=mask, other=0.0)


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
def queries_of(local, block_row, block_column, rows, columns, problem: tl.constexpr):
    """Where some queries of a block stand: along the rows, along the columns, and whether they exist."""
    row = place(local // problem.columns.max_queries, block_row, rows, problem.rows)
    column = place(local % problem.columns.max_queries, block_column, columns, problem.columns)
    return row, column, row[3] & column[3]


@triton.jit
def logits_along(
    query, table, place_of_query, start, seen, axis: tl.constexpr, problem: tl.constexpr, slots: tl.constexpr
):
    """Logits [queries, slots] along one axis, the slots beginning at a position of the window."""
    position = (start + tl.arange(0, slots))[None, :]
    visible_here = (position >= seen[0]) & (position < seen[1])
    if problem.centered:
        distance = position - axis.halo - place_of_query[1][:, None]
        visible_here = visible_here & (distance <= axis.halo) & (distance >= -axis.halo)
    if problem.has_tables:
        rounded = table.to(query.dtype)
        of_entries = product(query, tl.trans(rounded), problem)
        if table.dtype != query.dtype:
            # What rounding a table of fp32 took away, as a second number of the query's dtype.
            rest = (table - rounded.to(table.dtype)).to(query.dtype)
            of_entries = add_product(of_entries, query, tl.trans(rest), problem)
        entry = position + (axis.block - 1) - place_of_query[2][:, None]
        # Out of the table's range lies only what is not seen.
        logits = tl.gather(of_entries, entry & (axis.entries - 1), 1) * (1 / problem.one)
    else:
        logits = tl.zeros((query.shape[0], slots), problem.accumulator)
    return tl.where(visible_here, logits, problem.hidden).to(query.dtype)


@triton.jit
def position_logits(
    query, tables, row, column, start, seen_rows, seen_columns, problem: tl.constexpr, slots: tl.constexpr
):
    """Logits [queries, slots] of the rows and of the columns from a place in the window onwards."""
    along_rows = logits_along(query, tables[0], row, start[0], seen_rows, problem.rows, problem, slots)
    return along_rows, logits_along(query, tables[1], column, start[1], seen_columns, problem.columns, problem, slots)


@triton.jit
def ones(position, problem: tl.constexpr, slots: tl.constexpr, dtype: tl.constexpr):
    """[slots, keys]: `one` in the slot of each key's position. The way through fp32 is for Triton's interpreter."""
    in_slot = tl.arange(0, slots)[:, None] == position[None, :]
    return tl.where(in_slot, problem.one, 0.0).to(tl.float32).to(dtype)


@triton.jit
def tiles_of_window(exists, pixel, block_row, rows, problem: tl.constexpr, tile: tl.constexpr):
    """Number of the first and after-last key tile that a tile of queries needs; none where no query exists."""
    first, after = visible(block_row, rows, problem.rows, problem.zeros)
    if problem.centered:
        first = tl.maximum(first, tl.min(pixel))
        after = tl.minimum(after, tl.max(pixel) + 2 * problem.rows.halo + 1)
    first = first // tile.key_rows * tile.tiles_across
    after = (after + tile.key_rows - 1) // tile.key_rows * tile.tiles_across
    return first, tl.where(tl.max(exists.to(tl.int32)) > 0, after, first)


@triton.jit
def keys_of_tile(index, block_row, block_column, rows, columns, problem: tl.constexpr, tile: tl.constexpr):
    """Positions in the window, pixels of the image, and existence of the keys of a tile."""
    n = tl.arange(0, tile.key_rows * tile.key_columns)
    row_position = index // tile.tiles_across * tile.key_rows + n // tile.key_columns
    column_position = index % tile.tiles_across * tile.key_columns + n % tile.key_columns
    row = block_row * problem.rows.block - problem.rows.halo + row_position
    column = block_column * problem.columns.block - problem.columns.halo + column_position
    in_window = (row_position < problem.rows.window) & (column_position < problem.columns.window)
    in_image = (row >= 0) & (row < rows.size) & (column >= 0) & (column < columns.size)
    return row_position, column_position, row, column, in_window & in_image
