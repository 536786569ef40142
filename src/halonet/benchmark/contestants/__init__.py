"""Who takes part: our backends and the peers, each on the same queries, keys and values."""

import torch

from halonet.benchmark.contestants.entry import (
    Contestant as Contestant,
    Entry as Entry,
    Inputs as Inputs,
    disagreement as disagreement,
    make_inputs as make_inputs,
    relative_error as relative_error,
)
from halonet.benchmark.contestants.flex import FLEX_ATTENTION
from halonet.benchmark.contestants.lucidrains import HALONET_PYTORCH
from halonet.benchmark.contestants.neighborhood import NATTEN
from halonet.benchmark.contestants.ours import COMPOSITE, CPU, REFERENCE, TRITON
from halonet.benchmark.contestants.timm import TIMM, TIMM_COMPILED
from halonet.benchmark.contestants.variants import VARIANTS
from halonet.errors import UserError, unknown_name

# The first that runs is the one that ratios are over.
OURS = {"cpu": CPU, "triton": TRITON, "composite": COMPOSITE, "reference": REFERENCE}
PEERS = {
    "timm": TIMM,
    "timm-compiled": TIMM_COMPILED,
    "flex_attention": FLEX_ATTENTION,
    "halonet-pytorch": HALONET_PYTORCH,
    "natten": NATTEN,
}
CONTESTANTS: dict[str, Contestant] = OURS | PEERS | VARIANTS
DEFAULT_PEERS = ("composite", *PEERS)
KERNELS = {"cpu": "cpu", "cuda": "triton"}  # of ours, by kind of device


def find_peers(names: list[str] | None, device: str) -> list[str]:
    """Say who is raced: our own kernel for the device, `cpu` or `triton`, and whoever is named.

    Args:
        names: Backends of ours and peers; None takes all but `reference`, which is slow on purpose.
        device: As in `Settings`; an accelerator that has no kernel of ours is left to `composite`.

    Raises:
        UserError: If a name is unknown.
    """
    for name in names or ():
        if name not in OURS | PEERS:
            raise UserError(unknown_name("peer", name, OURS | PEERS))
    own = KERNELS.get(torch.device(device).type, "composite")
    return list(dict.fromkeys([own, *(DEFAULT_PEERS if names is None else names)]))
