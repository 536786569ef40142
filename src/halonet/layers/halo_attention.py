"""Halo attention as a layer: projections and position tables around the operator."""

from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
import torch.fx
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from halonet.errors import UserError
from halonet.layers.projection import Projection, split_outputs
from halonet.ops import attention_weights
from halonet.ops.arguments import choice, finite_number, pair, whole_number
from halonet.ops.attention.backends import backend_names
from halonet.ops.attention.calls import packed_attention
from halonet.ops.attention.geometry import Geometry, make_geometry
from halonet.ops.attention.packed import Packed, unpack
from halonet.ops.tracing import refuse_torchscript

# torch.fx records its call; it cannot trace through it, because it looks at sizes.
torch.fx.wrap("packed_attention")

POSITIONS = ("relative", "absolute", "none")
EMBEDDINGS = ("split", "full")
LONGEST_TABLE = 2**20


class HaloAttention(nn.Module):
    """Local self-attention over blocks with a halo, from feature map to feature map (paper sections 2.1-2.2).

    One layer, `qkv`, makes queries, keys and values; there are no biases and no output projection (the 1x1 convolution
    that follows takes its place, and the paper's parameter counts leave no room for another). With a stride the
    queries are subsampled and keys and values stay at full resolution (section 2.2, "attention downsampling"): then
    `query` is called on every `stride`-th pixel, and `key_value` on all. Hooks, parametrizations and adapters of the
    three work, because each is called as a module. State dictionaries load whether they hold `qkv` or the other two.

    A feature map in channels_last memory passes through without a copy; a contiguous NCHW map is copied once.

    Args:
        channels: Channels of the input.
        num_heads: Heads; must divide the query and the value channels.
        block_size: The paper's b in pixels, int or (rows, columns).
        halo_size: The paper's h in pixels, int or (rows, columns).
        query_key_channels: Channels of queries and keys (r_qk times the width); None takes `channels`.
        value_channels: Channels of the values and of the output (r_v times the width); None takes `channels`.
        stride: Pixels between queries, int or (rows, columns).
        position: "relative" (the paper's tables), "absolute" (learned row and column encodings added to the
            input: the comparison of appendix G) or "none".
        embedding: "split": the first half of a head reads the row table, the second the column table (the
            paper). "full": both tables read the whole head (timm, BoTNet).
        feature_size: Height and width of the maps the absolute encodings are made for; other sizes interpolate.
        scale: Factor of the logits; None takes d_qk ** -0.5.
        border: "mask" or "zeros", see `halonet.halo_attention`.
        centered: Whether each query sees only its own centered window.
        offset_stride: See `halonet.halo_attention`.
        backend: See `halonet.halo_attention`; never part of a checkpoint.

    Raises:
        UserError: If the channels do not divide by the heads, or a value is unknown, out of range or of another type.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_heads: int,
        block_size: int | tuple[int, int],
        halo_size: int | tuple[int, int],
        query_key_channels: int | None = None,
        value_channels: int | None = None,
        stride: int | tuple[int, int] = 1,
        position: str = "relative",
        embedding: str = "split",
        feature_size: tuple[int, int] | None = None,
        scale: float | None = None,
        border: str = "mask",
        centered: bool = False,
        offset_stride: int | tuple[int, int] | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.channels = channels = whole_number("channels", channels, 1)
        self.num_heads = num_heads = whole_number("num_heads", num_heads, 1)
        self.query_key_channels = (
            channels if query_key_channels is None else whole_number("query_key_channels", query_key_channels, 1)
        )
        self.value_channels = channels if value_channels is None else whole_number("value_channels", value_channels, 1)
        self.block_size = pair("block_size", block_size, 1)
        self.halo_size = pair("halo_size", halo_size, 0)
        self.stride = pair("stride", stride, 1)
        self.position = position
        self.scale = scale
        self.border = border
        self.centered = centered
        self.offset_stride = offset_stride
        self.backend = backend
        if feature_size is not None:
            feature_size = pair("feature_size", feature_size, 1)
        self._check(embedding, feature_size)

        sizes = self._query_and_key_value_channels()
        qkv = Projection(channels, sum(sizes), bias=False)
        nn.init.normal_(qkv.weight, std=channels**-0.5)
        if self.stride == (1, 1):
            self.qkv = qkv
        else:  # split from one matrix, so that a seed gives the same numbers at every stride
            self.query, self.key_value = split_outputs(qkv, sizes)
        if position == "relative":
            head_width = self.query_key_channels // num_heads
            row_width = head_width if embedding == "full" else head_width // 2
            column_width = head_width if embedding == "full" else head_width - row_width
            row_length, column_length = (2 * (b + h) - 1 for b, h in zip(self.block_size, self.halo_size, strict=True))
            self.row_embedding = nn.Parameter(torch.empty(row_length, row_width))
            self.column_embedding = nn.Parameter(torch.empty(column_length, column_width))
            for table in (self.row_embedding, self.column_embedding):
                nn.init.normal_(table, std=1.0)
        else:
            self.row_embedding = self.column_embedding = None
        if position == "absolute" and feature_size is not None:
            height, width = feature_size
            self.row_position = nn.Parameter(torch.empty(height, channels))
            self.column_position = nn.Parameter(torch.empty(width, channels))
            for table in (self.row_position, self.column_position):
                nn.init.normal_(table, std=0.02)

    def _check(self, embedding: str, feature_size: tuple[int, int] | None) -> None:
        for name, channels in (("query_key", self.query_key_channels), ("value", self.value_channels)):
            if channels % self.num_heads:
                raise UserError(
                    f"{name}_channels is {channels} and num_heads is {self.num_heads}; the channels must be a positive "
                    "multiple of the heads"
                )
        choice("position", self.position, POSITIONS)
        choice("embedding", embedding, EMBEDDINGS)
        choice("backend", self.backend, backend_names())
        if self.scale is not None:
            finite_number("scale", self.scale)
        geometry = self.geometry(1, 1)
        longest = max(geometry.rows.table_length, geometry.columns.table_length)
        if self.position == "relative" and longest > LONGEST_TABLE:
            raise UserError(
                f"block_size {self.block_size} and halo_size {self.halo_size} need position tables of {longest} "
                f"entries; a layer takes at most {LONGEST_TABLE}. Take smaller ones, or position='none'"
            )
        if self.position == "absolute" and feature_size is None:
            raise UserError("position='absolute' needs feature_size=(height, width), the size its encodings are for")

    def forward(
        self, x: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch value_channels query_rows query_columns"]:
        """Attend within the feature map; the result has ceil(size / stride) rows and columns."""
        result = packed_attention(
            self._project(x), self.row_embedding, self.column_embedding, backend=self.backend, **self._geometry()
        )
        return result.flatten(3).permute(0, 3, 1, 2)

    def attention_weights(
        self, x: Float[Tensor, "batch channels rows columns"], positions: Int[Tensor, "points 2"]
    ) -> tuple[Float[Tensor, "batch points heads rows columns"], Float[Tensor, "batch points heads"]]:
        """Where the queries at `positions` of the query grid look; see `halonet.attention_weights`."""
        query, key, _ = unpack(self._project(x))
        return attention_weights(
            query, key, self.row_embedding, self.column_embedding, positions=positions, **self._geometry()
        )

    def geometry(self, rows: int, columns: int) -> Geometry:
        """Blocks, windows and queries of a feature map."""
        options = self._geometry()
        del options["scale"]
        return make_geometry(rows, columns, **options)

    def _project(self, x: Tensor) -> Packed:
        """Project a feature map to queries, keys and values."""
        x = channels_to_the_end(x, self.channels)
        if self.position == "absolute":
            rows, columns = x.shape[1], x.shape[2]
            x = x + resize_table(self.row_position, rows)[:, None] + resize_table(self.column_position, columns)
        sizes = (self.num_heads, self.query_key_channels, self.value_channels)
        if self.stride == (1, 1):
            return Packed(self.qkv(x), None, *sizes)
        row_stride, column_stride = self.stride
        query = self.query(x[:, ::row_stride, ::column_stride])
        return Packed(self.key_value(x), query.unflatten(-1, (self.num_heads, -1)), *sizes)

    def _query_and_key_value_channels(self) -> list[int]:
        return [self.query_key_channels, self.query_key_channels + self.value_channels]

    def _geometry(self) -> dict[str, Any]:
        return {
            "block_size": self.block_size,
            "halo_size": self.halo_size,
            "stride": self.stride,
            "scale": self.scale,
            "border": self.border,
            "centered": self.centered,
            "offset_stride": self.offset_stride,
        }

    def fit_state(self, state: MutableMapping[str, Tensor], prefix: str = "") -> None:
        """Convert projections in a state dictionary to the form of this layer's stride, in place; `prefix` is its name.

        Versions up to 0.1 had `qkv` at every stride, and a network may start from the weights of one that pools where
        it strides.
        """
        rows = self._query_and_key_value_channels()
        for kind in ("weight", "bias"):
            joined, *parts = (f"{prefix}{name}.{kind}" for name in ("qkv", "query", "key_value"))
            shapes = [tuple(getattr(state.get(name), "shape", ())) for name in (joined, *parts)]
            if self.stride == (1, 1):
                if [shape[:1] for shape in shapes[1:]] == [(each,) for each in rows] and shapes[1][1:] == shapes[2][1:]:
                    state[joined] = torch.cat([state.pop(name) for name in parts])
            elif shapes[0][:1] == (sum(rows),):
                tensors = state.pop(joined).split(rows)
                for layer, name, tensor in zip((self.query, self.key_value), parts, tensors, strict=True):
                    if getattr(layer, kind, None) is not None or tensor.any():  # folded norms gave queries a bias of 0
                        state[name] = tensor.clone()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any, **named: Any) -> None:
        self.fit_state(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *arguments, **named)

    def __prepare_scriptable__(self) -> None:
        refuse_torchscript()

    def extra_repr(self) -> str:
        """Show the settings that the projections do not show."""
        return (
            f"num_heads={self.num_heads}, block_size={self.block_size}, halo_size={self.halo_size}, "
            f"stride={self.stride}, position={self.position}, border={self.border}, centered={self.centered}"
        )


@torch.fx.wrap
def channels_to_the_end(x: Tensor, channels: int) -> Tensor:
    """Check the shape of a map, and view it as [batch, rows, columns, channels]."""
    if x.dim() != 4 or x.shape[1] != channels:
        raise UserError(f"input has shape {list(x.shape)}, but must be [batch, {channels}, rows, columns]")
    return x.permute(0, 2, 3, 1)


def fit_state(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy a state dictionary, with projections in the form that a network's layers have.

    `load_state_dict` converts them by itself; this is for code that compares names and shapes first.
    """
    fitted = dict(state)
    for name, module in network.named_modules():
        if isinstance(module, HaloAttention):
            module.fit_state(fitted, f"{name}." if name else "")
    return fitted


@torch.fx.wrap
def resize_table(table: Float[Tensor, "length width"], length: int) -> Float[Tensor, "new_length width"]:
    """Resize a position table by linear interpolation (appendix F).

    Ends stay ends; in a relative table, whose length is odd, offset 0 therefore stays offset 0.
    """
    if table.shape[0] == length:
        return table
    return F.interpolate(table.mT[None], size=length, mode="linear", align_corners=True)[0].mT
