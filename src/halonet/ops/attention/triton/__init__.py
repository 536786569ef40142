"""The Triton backend."""

from halonet.ops.attention.triton.backend import (
    SUMMARY as SUMMARY,
    halo_attention as halo_attention,
    packed_attention as packed_attention,
    unsupported_reason as unsupported_reason,
)
