"""timm's `HaloAttn`, its projections replaced by given tensors; as it is, and compiled."""

from collections.abc import Callable
from pathlib import Path

import torch
from timm.layers.halo_attn import HaloAttn
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


def _unsupported_reason(size: Size, settings: Settings, training: bool) -> str | None:
    if size.rows % size.block or size.columns % size.block:
        return f"it needs maps that blocks of {size.block} divide"
    if size.centered:
        return "it has no centered windows"
    if size.stride not in (1, 2) or size.block % size.stride:
        return f"it has no stride of {size.stride} in blocks of {size.block}"
    needed, there = _bytes_of_scores(size, settings, training), _bytes_available(settings.device)
    if needed > there:
        return f"its matrices of scores take about {needed / 2**30:.0f} GiB; {there / 2**30:.0f} are free"
    return None


def _bytes_of_scores(size: Size, settings: Settings, training: bool) -> int:
    """Scores, position logits, their sum and the softmax live at once; in training, two gradients too."""
    queries = settings.batch * size.heads * size.rows * size.columns // size.stride**2
    return queries * size.window**2 * settings.torch_dtype.itemsize * (6 if training else 4)


def _bytes_available(device: str) -> float:
    """Memory that Linux calls available; infinite where nothing tells."""
    meminfo = Path("/proc/meminfo")
    if device != "cpu" or not meminfo.exists():
        return float("inf")
    line = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable"))
    return 1024 * float(line.split()[1])


def make_layer(inputs: Inputs) -> tuple[HaloAttn, list[Tensor]]:
    """Build the layer around copies of the inputs in its own layout; also return the tensors that receive gradients."""
    size, dtype, device = inputs.size, inputs.query.dtype, inputs.query.device
    layer = HaloAttn(
        size.heads * size.query_channels,
        size.heads * size.value_channels,
        num_heads=size.heads,
        dim_head=size.query_channels,
        stride=size.stride,
        block_size=size.block,
        halo_size=size.halo,
    ).to(device, dtype)
    tables = [layer.pos_embed.height_rel, layer.pos_embed.width_rel]
    for table in tables:
        nn.init.normal_(table, std=0.5)
    query = channels_first(inputs.query)
    # Keys and values of a head lie side by side.
    both = channels_first(torch.cat([inputs.key, inputs.value], -1))
    layer.add_module("q", FixedProjection(query))
    layer.add_module("kv", FixedProjection(both))
    return layer, [query, both, *tables]


def expected_of(inputs: Inputs, layer: HaloAttn) -> Tensor:
    """The expected output: our operator with the layer's tables and border rule."""
    # Its tables begin 2h before the first offset that occurs, and their logits are not scaled.
    unused = 2 * inputs.size.halo
    tables = [table[unused:] / layer.scale for table in (layer.pos_embed.height_rel, layer.pos_embed.width_rel)]
    return attend(inputs, tables=tables, offset_stride=1, border="zeros")


def _prepare(form: Callable[[nn.Module], Callable[[Tensor], Tensor]]) -> Callable[[Inputs], Prepared]:
    def prepare(inputs: Inputs) -> Prepared:
        layer, leaves = make_layer(inputs)
        size = inputs.size
        image = inputs.query.new_empty(len(inputs.query), 1, size.rows, size.columns)  # only its shape is read
        call = form(layer)
        return Prepared(
            lambda: call(image),
            leaves,
            lambda: (channels_last(call(image), size.heads), expected_of(inputs, layer)),
        )

    return prepare


TIMM = Implementation(_unsupported_reason, _prepare(lambda layer: layer))
TIMM_COMPILED = Implementation(
    _unsupported_reason, _prepare(lambda layer: torch.compile(layer, dynamic=False)), compiles=True
)
