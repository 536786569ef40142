"""PyTorch's FlexAttention, compiled, with the halo as its mask and relative logits as its change of scores."""

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from halonet.benchmark.peers.implementation import Implementation, Inputs, Prepared
from halonet.benchmark.peers.ours import attend
from halonet.benchmark.settings import Settings
from halonet.benchmark.sizes import Size

LARGEST_MASK = 2**27  # pairs of a query and a key; the mask of all is made at once, with several bytes for each


def _unsupported_reason(size: Size, settings: Settings, training: bool) -> str | None:
    if training and settings.device == "cpu":
        return "it has no backward on a CPU"
    if min(size.query_channels, size.value_channels) < 16:
        return "it needs heads of at least 16 channels"
    if size.centered:
        return "its mask here has no centered windows"
    geometry = size.geometry
    pairs = geometry.rows.num_queries * geometry.columns.num_queries * size.rows * size.columns
    if pairs > LARGEST_MASK:
        return f"its mask would be made of {pairs / 1e6:.0f} million pairs at once"
    return None


def _prepare(inputs: Inputs) -> Prepared:
    size = inputs.size
    rows, columns = size.geometry.rows, size.geometry.columns
    trains = inputs.query.device.type != "cpu"  # on a CPU it refuses what requires gradients, needed or not
    query, key, value = (
        each.detach().flatten(1, 2).transpose(1, 2).contiguous().requires_grad_(trains)
        for each in (inputs.query, inputs.key, inputs.value)
    )
    row_table, column_table = inputs.tables

    def row_of_query(index: Tensor) -> Tensor:
        return index // columns.num_queries * size.stride

    def column_of_query(index: Tensor) -> Tensor:
        return index % columns.num_queries * size.stride

    def may_see(_batch: Tensor, _head: Tensor, query_index: Tensor, key_index: Tensor) -> Tensor:
        # Places in the window of the query's block.
        row = key_index // columns.size - row_of_query(query_index) // size.block * size.block + size.halo
        column = key_index % columns.size - column_of_query(query_index) // size.block * size.block + size.halo
        return (row >= 0) & (row < size.window) & (column >= 0) & (column < size.window)

    counts = (rows.num_queries * columns.num_queries, rows.size * columns.size)
    mask = create_block_mask(may_see, None, None, *counts, device=str(query.device))
    compiled = torch.compile(flex_attention, dynamic=False)
    middle = size.block + size.halo - 1

    def run() -> Tensor:
        scale = size.query_channels**-0.5
        row_logits = query[..., : row_table.shape[1]] @ row_table.mT * scale
        column_logits = query[..., row_table.shape[1] :] @ column_table.mT * scale

        def add_positions(score: Tensor, b: Tensor, h: Tensor, query_index: Tensor, key_index: Tensor) -> Tensor:
            # Evaluated where the mask hides too, so the offset must be kept inside the table.
            row = (key_index // columns.size - row_of_query(query_index) + middle).clamp(0, 2 * middle)
            column = (key_index % columns.size - column_of_query(query_index) + middle).clamp(0, 2 * middle)
            return score + row_logits[b, h, query_index, row] + column_logits[b, h, query_index, column]

        result = compiled(query, key, value, score_mod=add_positions, block_mask=mask)
        return result.transpose(1, 2).unflatten(1, (rows.num_queries, columns.num_queries))

    return Prepared(run, [query, key, value, *inputs.tables], lambda: (run(), attend(inputs)))


FLEX_ATTENTION = Implementation(_unsupported_reason, _prepare, compiles=True)
