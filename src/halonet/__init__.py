"""Local self-attention for vision: the HaloNet operator, the models H0 to H7, and their training."""

from halonet.layers import HaloAttention as HaloAttention
from halonet.loading import load as load
from halonet.models import (
    HALONETS as HALONETS,
    HaloNet as HaloNet,
    HaloNetConfig as HaloNetConfig,
    accelerate as accelerate,
    accelerated_layers as accelerated_layers,
    create_model as create_model,
    fuse_batch_norm as fuse_batch_norm,
    restore as restore,
)
from halonet.ops import (
    attention_weights as attention_weights,
    halo_attention as halo_attention,
    use_backend as use_backend,
)

__version__ = "0.1.0"
