"""The sizes at which the operator is measured, by name: every layer of H0 to H7, and awkward ones."""

from dataclasses import dataclass
from typing import Any

from halonet.errors import UserError, unknown_name
from halonet.models.config import HALONETS, HaloNetConfig, scaled
from halonet.ops.attention.geometry import Geometry, make_geometry

FAMILY = ("h0", "h1", "h2", "h3", "h4", "h5", "h6", "h7")


@dataclass(frozen=True, kw_only=True)
class Size:
    """One call of the operator; channels are of a head, all other lengths in pixels of the keys' map."""

    rows: int
    columns: int
    heads: int
    query_channels: int
    value_channels: int
    block: int = 8
    halo: int = 3
    stride: int = 1
    centered: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of the operator beside its tensors."""
        named = {"block_size": self.block, "halo_size": self.halo}
        return named | {"stride": self.stride, "centered": self.centered}

    @property
    def geometry(self) -> Geometry:
        """The integers of the call, with the masked border."""
        return make_geometry(self.rows, self.columns, **self.options)

    @property
    def window(self) -> int:
        """Side of the window that a block sees, in pixels: b + 2h."""
        return self.block + 2 * self.halo

    @property
    def table_widths(self) -> tuple[int, int]:
        """Channels of the row and of the column table, as the paper splits a head."""
        return self.query_channels // 2, self.query_channels - self.query_channels // 2


def sizes_of_model(name: str, config: HaloNetConfig) -> dict[str, Size]:
    """List the layers of a row of H0 to H7, whose stem reduces by 4, at its own image size.

    They are `NAME/stageN`, and from the second stage on `NAME/stageN-strided`, the stage's first layer, whose keys lie
    on the finer map of the stage before.
    """
    sizes = {}
    side = -(-config.image_size // 4)
    for stage, (width, heads) in enumerate(zip(config.widths, config.num_heads, strict=True), 1):
        strides = {"-strided": 2, "": 1} if stage > 1 else {"": 1}
        for suffix, stride in strides.items():
            sizes[f"{name}/stage{stage}{suffix}"] = Size(
                rows=side,
                columns=side,
                heads=heads,
                query_channels=scaled(width, config.query_key_ratio) // heads,
                value_channels=scaled(width, config.value_ratio) // heads,
                block=config.block_size,
                halo=config.halo_size,
                stride=stride,
            )
            side = -(-side // stride)
    return sizes


AWKWARD = {
    # 97 and 161 do not divide by 8: blocks of one pixel at the bottom and at the right.
    "awkward/partial-blocks": Size(rows=97, columns=161, heads=4, query_channels=16, value_channels=16),
    "awkward/block-over-image": Size(rows=20, columns=24, heads=4, query_channels=16, value_channels=16, block=32),
    # The block of H5 in the channels of H1.
    "awkward/block14": Size(rows=56, columns=56, heads=4, query_channels=16, value_channels=16, block=14, halo=2),
    # Section 4.6: the last stage of a detector with b = 32, at 1024 px.
    "awkward/detector-block32": Size(rows=32, columns=32, heads=8, query_channels=64, value_channels=64, block=32),
    # timm's halonet_h1 has 8 heads in its first stage, where the paper has 4.
    "awkward/timm-stage1": Size(rows=64, columns=64, heads=8, query_channels=8, value_channels=8),
}

SIZES = {key: size for name in FAMILY for key, size in sizes_of_model(name, HALONETS[name]).items()} | AWKWARD
DEFAULT_SIZES = ("h1/stage1", "h1/stage2", "h1/stage3", "h1/stage4")


def find_sizes(names: list[str] | None) -> dict[str, Size]:
    """Look up keys of `SIZES`, or all with a prefix before the slash; None takes the stages of H1."""
    found = {}
    for name in names or DEFAULT_SIZES:
        sizes = {key: size for key, size in SIZES.items() if name in (key, key.partition("/")[0])}
        if not sizes:
            raise UserError(unknown_name("size", name, SIZES))
        found |= sizes
    return found
