"""Implementations of halo attention that are compared: our backends, and peers from other packages."""

import torch

from halonet.benchmark.peers.flex import FLEX_ATTENTION
from halonet.benchmark.peers.implementation import (
    Implementation as Implementation,
    Inputs as Inputs,
    Prepared as Prepared,
    disagreement as disagreement,
    make_inputs as make_inputs,
    relative_error as relative_error,
)
from halonet.benchmark.peers.lucidrains import HALONET_PYTORCH
from halonet.benchmark.peers.neighborhood import NATTEN
from halonet.benchmark.peers.ours import COMPOSITE, CPU, REFERENCE, TRITON
from halonet.benchmark.peers.timm import TIMM, TIMM_COMPILED
from halonet.benchmark.peers.variants import VARIANTS
from halonet.benchmark.settings import check_names

# Ratios are over the first of these that runs.
OURS = {"cpu": CPU, "triton": TRITON, "composite": COMPOSITE, "reference": REFERENCE}
PEERS = {
    "timm": TIMM,
    "timm-compiled": TIMM_COMPILED,
    "flex_attention": FLEX_ATTENTION,
    "halonet-pytorch": HALONET_PYTORCH,
    "natten": NATTEN,
}
IMPLEMENTATIONS: dict[str, Implementation] = OURS | PEERS | VARIANTS
DEFAULT_PEERS = ("composite", *PEERS)
FUSED_BACKENDS = {"cpu": "cpu", "cuda": "triton"}  # by device type


def find_peers(names: list[str] | None, device: str) -> list[str]:
    """List our fused backend for the device (`composite` where there is none), then the named implementations.

    None names all but `reference`, which is slow on purpose; an unknown name raises a `UserError`.
    """
    check_names("peer", names, OURS | PEERS)
    own = FUSED_BACKENDS.get(torch.device(device).type, "composite")
    return list(dict.fromkeys([own, *(DEFAULT_PEERS if names is None else names)]))
