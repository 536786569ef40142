"""Layers: halo attention with its projections, and the bottleneck around it."""

from halonet.layers.bottleneck import Bottleneck as Bottleneck
from halonet.layers.halo_attention import (
    HaloAttention as HaloAttention,
    fit_state as fit_state,
    resize_table as resize_table,
)
