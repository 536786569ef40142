"""Operators: halo attention, in every backend."""

from halonet.ops.attention import (
    attention_weights as attention_weights,
    halo_attention as halo_attention,
    use_backend as use_backend,
)
