"""Who takes part: our backends and the peers, each on the same queries, keys and values."""

from halonet.benchmark.contestants.entry import (
    Contestant as Contestant,
    Entry as Entry,
    Inputs as Inputs,
    disagreement as disagreement,
    make_inputs as make_inputs,
)
from halonet.benchmark.contestants.flex import FLEX_ATTENTION
from halonet.benchmark.contestants.lucidrains import HALONET_PYTORCH
from halonet.benchmark.contestants.neighborhood import NATTEN
from halonet.benchmark.contestants.ours import COMPOSITE, CPU, REFERENCE
from halonet.benchmark.contestants.timm import TIMM, TIMM_COMPILED
from halonet.benchmark.contestants.variants import VARIANTS
from halonet.errors import UserError, unknown_name

OURS = {"cpu": CPU, "composite": COMPOSITE, "reference": REFERENCE}
PEERS = {
    "timm": TIMM,
    "timm-compiled": TIMM_COMPILED,
    "flex_attention": FLEX_ATTENTION,
    "halonet-pytorch": HALONET_PYTORCH,
    "natten": NATTEN,
}
CONTESTANTS: dict[str, Contestant] = OURS | PEERS | VARIANTS
DEFAULT_PEERS = ("composite", *PEERS)


def find_peers(names: list[str] | None) -> list[str]:
    """Say who is raced: `cpu` and whoever is named.

    Args:
        names: Backends of ours and peers; None takes all but `reference`, which is slow on purpose.

    Raises:
        UserError: If a name is unknown.
    """
    for name in names or ():
        if name not in OURS | PEERS:
            raise UserError(unknown_name("peer", name, OURS | PEERS))
    return list(dict.fromkeys(["cpu", *(DEFAULT_PEERS if names is None else names)]))
