"""Multiply-adds of a model, counted as the paper's Table 1 counts them."""

import copy
import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from halonet.layers.halo_attention import HaloAttention
from halonet.models.halonet import HaloNet
from halonet.ops.attention.geometry import Axis, make_axis


@dataclass
class Macs:
    """Counts for one image.

    Attributes:
        total: Multiply-adds of convolutions, projections, attention and classifier.
        attention: Those in query-key and probability-value products: (b + 2h)^2 keys for each real query, padding
            counted, position logits not (Table 1).
        pairs: Query-key pairs counted in this way, over all layers and heads.
        visible_pairs: Pairs of a query with a key inside the image: what `border="mask"` needs.
    """

    total: int = 0
    attention: int = 0
    pairs: int = 0
    visible_pairs: int = 0


def count_macs(model: HaloNet, image_size: int | tuple[int, int]) -> Macs:
    """Count the multiply-adds of one image of a side, or (height, width), without computing or allocating anything."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    model = copy.deepcopy(model).to("meta").eval()
    macs = Macs()

    def count(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            macs.total += output[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            macs.total += output[0].numel() * module.in_features
        elif isinstance(module, HaloAttention):
            _count_attention(macs, module, inputs[0])

    for module in model.modules():
        module.register_forward_hook(count)
        if isinstance(module, HaloAttention):
            module.forward = functools.partial(_shape_of_attention, module)  # the shape is enough
    with torch.no_grad():
        model(torch.empty(1, model.in_chans, height, width, device="meta"))
    return macs


def _shape_of_attention(layer: HaloAttention, x: Tensor) -> Tensor:
    rows, columns = (-(-side // step) for side, step in zip(x.shape[2:], layer.stride, strict=True))
    return x.new_empty(x.shape[0], layer.value_channels, rows, columns)


def _count_attention(macs: Macs, layer: HaloAttention, x: Tensor) -> None:
    rows, columns = map(make_axis, x.shape[2:], layer.block_size, layer.halo_size, layer.stride, layer.stride)
    queries, pixels = rows.num_queries * columns.num_queries, rows.size * columns.size
    window = rows.window * columns.window
    channels = layer.query_key_channels + layer.value_channels
    products = queries * window * channels
    macs.attention += products
    macs.total += products + layer.channels * (queries * layer.query_key_channels + pixels * channels)
    macs.pairs += layer.num_heads * queries * window
    macs.visible_pairs += layer.num_heads * _visible(rows, layer.centered) * _visible(columns, layer.centered)


def _visible(axis: Axis, centered: bool) -> int:
    """Pairs along one axis of a query with a key inside the image."""
    pairs = 0
    for pixel in range(0, axis.size, axis.stride):
        top = pixel if centered else pixel // axis.block * axis.block
        bottom = top + 1 if centered else top + axis.block
        pairs += min(bottom + axis.halo, axis.size) - max(top - axis.halo, 0)
    return pairs
