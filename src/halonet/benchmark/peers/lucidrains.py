"""The attention layer of the package halonet-pytorch, its projections replaced by given tensors.

It unfolds its input before it projects; here the input is the keys and values themselves, so that none of its
redundant projections is counted. Its tables read the whole head and are scaled with the queries, its border is masked.
"""

import importlib
import importlib.util

import torch
from torch import Tensor, nn

from halonet.benchmark.peers.implementation import (
    FixedProjection,
    Implementation,
    Inputs,
    Prepared,
    channels_first,
    channels_last,
)
from halonet.benchmark.peers.ours import attend
from halonet.benchmark.settings import Settings
from halonet.benchmark.sizes import Size


class _CopiedProjection(FixedProjection):
    """The layer scales its queries in place: give it a copy."""

    def forward(self, x: Tensor) -> Tensor:
        """Return a copy of the tensor."""
        return self.tensor.clone()


def _unsupported_reason(size: Size, settings: Settings, training: bool) -> str | None:
    if importlib.util.find_spec("halonet_pytorch") is None:
        return "it is not installed: pip install halonet-pytorch"
    if size.rows % size.block or size.columns % size.block:
        return f"it needs maps that blocks of {size.block} divide"
    if size.halo < 1 or size.stride > 1 or size.centered:
        return "it has neither strides nor centered windows, and needs a halo"
    if size.query_channels != size.value_channels:
        return "its queries and values are equally wide"
    return None


def _prepare(inputs: Inputs) -> Prepared:
    size = inputs.size
    inner = size.heads * size.query_channels
    module = importlib.import_module("halonet_pytorch")
    layer = module.HaloAttention(
        dim=2 * inner,
        block_size=size.block,
        halo_size=size.halo,
        dim_head=size.query_channels,
        heads=size.heads,
    ).to(inputs.query.device, inputs.query.dtype)
    query = _in_blocks(inputs.query.detach(), size.block).requires_grad_()
    keys_then_values = torch.cat([channels_first(inputs.key), channels_first(inputs.value)], 1)
    both = keys_then_values.detach().requires_grad_()
    layer.to_q, layer.to_kv, layer.to_out = _CopiedProjection(query), nn.Identity(), nn.Identity()
    tables = [layer.rel_pos_emb.rel_height, layer.rel_pos_emb.rel_width]
    for table in tables:
        nn.init.normal_(table, std=0.5)

    def expected() -> Tensor:
        # As in timm, its tables begin 2h before the first offset that occurs.
        return attend(inputs, tables=[table[2 * size.halo :] for table in tables])

    return Prepared(
        lambda: layer(both),
        [query, both, *tables],
        lambda: (channels_last(layer(both), size.heads), expected()),
    )


def _in_blocks(query: Tensor, block: int) -> Tensor:
    """Cut [batch, rows, columns, heads, d] into [batch * blocks, block * block, heads * d]."""
    batch, rows, columns = query.shape[:3]
    query = query.reshape(batch, rows // block, block, columns // block, block, -1)
    return query.transpose(2, 3).reshape(-1, block * block, query.shape[-1]).contiguous()


HALONET_PYTORCH = Implementation(_unsupported_reason, _prepare)
