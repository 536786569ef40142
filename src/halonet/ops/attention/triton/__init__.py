"""The Triton backend."""

from halonet.ops.attention.triton.backend import (
    SUMMARY as SUMMARY,
    halo_attention as halo_attention,
    refusal as refusal,
)
