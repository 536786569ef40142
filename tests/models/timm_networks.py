"""timm's networks and layers with halo attention, for the tests of `halonet.accelerate`."""

from typing import Any

from timm.layers.halo_attn import HaloAttn

ANY_SIZE = [
    "halonet_h1",
    "halonet26t",
    "sehalonet33ts",
    "halonet50ts",
    "eca_halonext26ts",
    "haloregnetz_b",
]
WITH_BOTNET_LAYERS = ["lamhalobotnet50ts_256", "halo2botnet50ts_256"]


def small_layer(**options: Any) -> HaloAttn:
    """Make one layer of timm in fp64, of 16 channels unless told otherwise."""
    chosen: dict[str, Any] = {"dim": 16, "num_heads": 2, "block_size": 4, "halo_size": 1} | options
    return HaloAttn(**chosen).double()
