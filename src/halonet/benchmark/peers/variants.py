"""Variants of our operator: what do centered windows cost, and what does strided attention save (paper)?"""

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from halonet.benchmark.peers.implementation import Implementation, Inputs, Prepared
from halonet.benchmark.peers.ours import always_supported, attend
from halonet.benchmark.settings import Settings
from halonet.benchmark.sizes import Size


def _relaxed(size: Size) -> Size:
    return dataclasses.replace(size, centered=False)


def _centered(size: Size) -> Size:
    return dataclasses.replace(size, centered=True)


def _unstrided(size: Size) -> Size:
    return dataclasses.replace(size, stride=1)


def _prepare(change: Callable[[Size], Size]) -> Callable[[Inputs], Prepared]:
    def prepare(inputs: Inputs) -> Prepared:
        changed = dataclasses.replace(inputs, size=change(inputs.size))
        leaves = [inputs.query, inputs.key, inputs.value, *inputs.tables]
        return Prepared(lambda: attend(changed), leaves, lambda: (attend(changed), attend(changed, "composite")))

    return prepare


def _prepare_pooled(inputs: Inputs) -> Prepared:
    """Attend at every pixel and average squares of stride x stride, as `downsampling="pool"` does."""
    query = torch.randn_like(inputs.key).requires_grad_()
    full = dataclasses.replace(inputs, size=_unstrided(inputs.size), query=query)

    def run(backend: str = "auto") -> Tensor:
        maps = attend(full, backend).flatten(3).permute(0, 3, 1, 2)
        return F.avg_pool2d(maps, inputs.size.stride, ceil_mode=True, count_include_pad=False)

    leaves = [query, inputs.key, inputs.value, *inputs.tables]
    return Prepared(run, leaves, lambda: (run(), run("composite")))


def _needs_stride(size: Size, settings: Settings, training: bool) -> str | None:
    return "this size has no stride; those whose name ends in -strided have" if size.stride == 1 else None


VARIANTS = {
    "relaxed": Implementation(always_supported, _prepare(_relaxed), computes=_relaxed),
    "centered": Implementation(always_supported, _prepare(_centered), computes=_centered),
    "strided": Implementation(_needs_stride, _prepare(lambda size: size)),
    "pooled": Implementation(_needs_stride, _prepare_pooled, computes=_unstrided),
}
