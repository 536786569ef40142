"""The form of a network that is exported: few operators, any size, batch norms folded.

Blocks of attention work on a matrix of pixels by channels, so that 1x1 convolutions are matrix products and nothing is
transposed between them; where the windows of a map lie is computed once for all layers on it.
"""

import copy
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from halonet.layers import HaloAttention
from halonet.layers.bottleneck import ACTIVATIONS, Bottleneck
from halonet.layers.global_pool import GlobalPool
from halonet.layers.stage import Stage
from halonet.models import HaloNet, fuse_batch_norm
from halonet.models.acceleration import AcceleratedHaloAttn
from halonet.models.fuse import is_plain
from halonet.models.halonet import PatchConv2d
from halonet.ops.attention.geometry import Geometry, make_axis
from halonet.ops.attention.portable import Windows, expand_tables, halo_attention, is_regular, make_windows

Network = TypeVar("Network", bound=nn.Module)


class Size(NamedTuple):
    """Of a batch of feature maps."""

    batch: int
    rows: int
    columns: int


def make_portable(model: Network) -> Network:
    """Copy a network and bring it into the form that is exported.

    A module that computes more than its class and its weights say, because of hooks, parametrizations, adapters or a
    class of its own, stays as it is.

    Args:
        model: A `HaloNet`, a network of timm after `halonet.accelerate`, or any module that holds one.

    Returns:
        A copy on the CPU in float32 and eval mode, which computes the same from equally named inputs.
    """
    model = copy_network(model)
    if any(isinstance(module, HaloNet) for module in model.modules()):
        model = fuse_batch_norm(model)
    model.requires_grad_(False)
    shared = SharedWindows()
    replaced: list[str] = []
    for name, module in list(model.named_modules()):
        if name.startswith(tuple(replaced)) or (portable := _replacement(module, shared)) is None:
            continue
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, portable)
        replaced.append(f"{name}.")
    model.register_forward_pre_hook(shared)
    model.register_forward_hook(shared)
    return model


def copy_network(model: Network) -> Network:
    """Copy a network to the CPU, in float32 and eval mode."""
    # Old weight norm and pruning keep computed weights, which deepcopy refuses; they are computed again when it runs.
    computed = {
        id(each): each.detach()
        for module in model.modules()
        for each in vars(module).values()
        if isinstance(each, Tensor) and not each.is_leaf
    }
    return copy.deepcopy(model, computed).cpu().float().eval()


class SharedWindows(dict[Any, Windows]):
    """Windows by map and geometry.

    As a hook it forgets them: tensors made while tracing must not outlive it. Not a function, so that a copied network
    has its own, and a pickle can hold it.
    """

    def __call__(self, *_: Any) -> None:
        """Forget all windows."""
        self.clear()


class PortableAttention(nn.Module):
    """A layer of halo attention, on `ops.attention.portable`.

    Args:
        query: Weight and bias of the queries; the scale is multiplied in.
        key: Likewise.
        value: Likewise.
        tables: Of the rows and of the columns, or None.
        positions: Encodings of the rows and of the columns that are added to the input, or None.
        num_heads: Heads.
        numbers: Block, halo, stride and offset stride of the rows, and of the columns.
        border: "mask" or "zeros".
        centered: Whether each query sees only its own centered window.
        shared: Windows by map and geometry.
    """

    def __init__(
        self,
        query: nn.Linear,
        key: nn.Linear,
        value: nn.Linear,
        tables: tuple[Tensor, Tensor] | None,
        *,
        positions: tuple[Tensor, Tensor] | None = None,
        num_heads: int,
        numbers: tuple[tuple[int, int, int, int], tuple[int, int, int, int]],
        border: str,
        centered: bool,
        shared: SharedWindows,
    ) -> None:
        super().__init__()
        self.query, self.key, self.value = query, key, value
        self.num_heads, self.numbers, self.border, self.centered = num_heads, numbers, border, centered
        self._shared = shared
        self.positions = None if positions is None else nn.ParameterList(positions).requires_grad_(False)
        any_map = self._geometry(Size(1, 1, 1))
        self._is_expanded = is_regular(any_map)
        if tables is None:
            self.row_table = self.column_table = None
        else:
            row_table, column_table = expand_tables(*tables, any_map) if self._is_expanded else tables
            # Transposed again in the program: a product with a contiguous table asks whether the map has one block.
            self.register_buffer("row_table", row_table.mT.contiguous())
            self.register_buffer("column_table", column_table.mT.contiguous())

    def forward(
        self, x: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch value_channels query_rows query_columns"]:
        """Attend within feature maps."""
        size = Size(x.shape[0], x.shape[2], x.shape[3])
        return to_maps(*self.attend(to_pixels(x), size))

    def attend(self, pixels: Float[Tensor, "pixels channels"], size: Size) -> tuple[Tensor, Size]:
        """Attend within feature maps; returns the pixels and the size of the result."""
        geometry = self._geometry(size)
        if self.positions is not None:
            pixels = (by_image(pixels, size) + self._encode(size)).view(pixels.shape)
        grid = Size(size.batch, geometry.rows.num_queries, geometry.columns.num_queries)
        query = self.query(self.subsample(pixels, size))
        projected = (query, self.key(pixels), self.value(pixels))
        query, key, value = (
            each.view(size.batch, place.rows * place.columns * self.num_heads, each.shape[1] // self.num_heads)
            for each, place in zip(projected, (grid, size, size), strict=True)
        )
        row_table, column_table = self._tables(geometry)
        result = halo_attention(
            query,
            key,
            value,
            row_table,
            column_table,
            windows=self._windows(size, pixels),
            border=self.border,
        )
        return result.reshape(-1, self.value.out_features), grid

    def _encode(self, size: Size) -> Float[Tensor, "pixels_of_a_map channels"]:
        """Position encodings of all pixels, interpolated to the size of the maps."""
        assert self.positions is not None
        rows, columns = (_resize(table, length) for table, length in zip(self.positions, size[1:], strict=True))
        return (rows[:, None] + columns).view(-1, rows.shape[1])

    def subsample(self, pixels: Float[Tensor, "pixels channels"], size: Size) -> Float[Tensor, "fewer_pixels channels"]:
        """Keep the pixels that queries stand at."""
        queried = self._windows(size, pixels).queried
        if queried is None:
            return pixels
        # Not by slices: whether those must be copied is a question that binds the program to some sizes.
        return by_image(pixels, size).index_select(1, queried).view(-1, pixels.shape[1])

    def _geometry(self, size: Size) -> Geometry:
        rows, columns = (make_axis(n, *numbers) for n, numbers in zip(size[1:], self.numbers, strict=True))
        return Geometry(rows, columns, self.border, self.centered)

    def _windows(self, size: Size, like: Tensor) -> Windows:
        key = (str(size), self.num_heads, self.numbers, self.border, self.centered)  # symbolic sizes have no hash
        if key not in self._shared:
            self._shared[key] = make_windows(self._geometry(size), self.num_heads, size.batch, like)
        return self._shared[key]

    def _tables(self, geometry: Geometry) -> tuple[Tensor | None, Tensor | None]:
        if self.row_table is None or self.column_table is None:
            return None, None
        tables = self.row_table.mT, self.column_table.mT
        return tables if self._is_expanded else expand_tables(*tables, geometry)


class PortableBottleneck(nn.Module):
    """A `Bottleneck` around attention, without norms, on pixels."""

    def __init__(self, block: Bottleneck, mixer: PortableAttention) -> None:
        super().__init__()
        self.reduce, self.expand = as_linear(block.reduce), as_linear(block.expand)
        self.reduce_act, self.mixer_act, self.act = block.reduce_act, block.mixer_act, block.act
        self.mixer = mixer
        self.shortcut = as_linear(block.shortcut[0]) if len(block.shortcut) else None  # pyright: ignore[reportArgumentType]

    def forward(self, pixels: Float[Tensor, "pixels channels"], size: Size) -> tuple[Tensor, Size]:
        """Apply the block; returns the pixels and the size of the result."""
        x, new_size = self.mixer.attend(self.reduce_act(self.reduce(pixels)), size)
        x = self.expand(self.mixer_act(x))
        if self.shortcut is not None:
            pixels = self.shortcut(self.mixer.subsample(pixels, size))
        return self.act(x + pixels), new_size


class PortableStage(nn.Sequential):
    """Blocks on pixels, from feature maps to feature maps."""

    def forward(
        self, input: Float[Tensor, "batch in_channels in_rows in_columns"]
    ) -> Float[Tensor, "batch channels rows columns"]:
        """Run the blocks in order."""
        pixels, size = to_pixels(input), Size(input.shape[0], input.shape[2], input.shape[3])
        for block in self:
            pixels, size = block(pixels, size)
        return to_maps(pixels, size)


class PortableAveragePool(nn.Module):
    """Average pooling by `ceil_mode`, for which torch.export cannot prove the size of the result."""

    def __init__(self, kernel_size: int | tuple[int, int]) -> None:
        super().__init__()
        self.kernel_size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size

    def forward(
        self, x: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch channels fewer_rows fewer_columns"]:
        """Pool."""
        rows, columns = self.kernel_size
        ones = x.new_ones(1, 1, *x.shape[2:])
        means, parts = (F.avg_pool2d(F.pad(each, (0, columns - 1, 0, rows - 1)), (rows, columns)) for each in (x, ones))
        return means / parts


class PortableGlobalPool(nn.Module):
    """Average over the pixels."""

    def forward(self, x: Float[Tensor, "batch channels rows columns"]) -> Float[Tensor, "batch channels"]:
        """Pool."""
        return x.mean((2, 3))


def to_pixels(x: Float[Tensor, "batch channels rows columns"]) -> Float[Tensor, "pixels channels"]:
    """Lay the pixels of all maps out as rows of a matrix."""
    # Copied in any case: whether it must be is a question that binds the program to maps of several pixels.
    return x.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).view(-1, x.shape[1])


def to_maps(pixels: Float[Tensor, "pixels channels"], size: Size) -> Float[Tensor, "batch channels rows columns"]:
    """Undo `to_pixels`."""
    # Copied, because a convolution of a view asks whether the maps have several pixels.
    return pixels.view(*size, pixels.shape[1]).permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)


def by_image(pixels: Float[Tensor, "pixels channels"], size: Size) -> Float[Tensor, "batch pixels_of_a_map channels"]:
    """Split the pixels of all maps by image."""
    return pixels.view(size.batch, size.rows * size.columns, pixels.shape[1])


def as_linear(layer: nn.Conv2d | nn.Linear, outputs: Any = slice(None), factor: float = 1.0) -> nn.Linear:
    """Copy some outputs of a linear layer or a 1x1 convolution, times a factor; a bias of zeros is left out."""
    weight = layer.weight.flatten(1)[outputs] * factor
    bias = None if layer.bias is None or not layer.bias[outputs].any() else layer.bias[outputs] * factor
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear


def _resize(table: Float[Tensor, "length width"], length: int) -> Float[Tensor, "new_length width"]:
    """Resize as `layers.halo_attention.resize_table` does; `F.interpolate` asks whether the map has several pixels."""
    step = torch.arange(length, dtype=table.dtype, device=table.device)
    place = step * (table.shape[0] - 1) / step.max().clamp(min=1)
    entry = torch.arange(table.shape[0], device=table.device)
    return (1 - (place[:, None] - entry).abs()).clamp(min=0) @ table


def _replacement(module: nn.Module, shared: SharedWindows) -> nn.Module | None:
    """The portable form of a module, or None if it stays."""
    if not is_plain(module):
        return None
    if isinstance(module, GlobalPool) and module.pool_type:
        return PortableGlobalPool()
    if isinstance(module, nn.AvgPool2d) and module.ceil_mode and module.kernel_size == module.stride:
        return None if module.padding or module.divisor_override else PortableAveragePool(module.kernel_size)
    if isinstance(module, PatchConv2d):
        return _from_patches(module)
    if isinstance(module, HaloAttention):
        return _from_ours(module, shared)
    if isinstance(module, AcceleratedHaloAttn):
        return _from_timm(module, shared)
    if isinstance(module, Stage):
        blocks = [_from_bottleneck(block, shared) for block in module]
        return PortableStage(*(block for block in blocks if block)) if all(blocks) else None
    return None


def _from_patches(convolution: PatchConv2d) -> nn.Module:
    """Pad by as many zeros at every size, of which the convolution leaves out what completes no patch."""
    rows, columns = convolution.stride
    convolution.__class__ = nn.Conv2d  # pyright: ignore[reportAttributeAccessIssue]
    return nn.Sequential(nn.ZeroPad2d((0, columns - 1, 0, rows - 1)), convolution)


def _from_bottleneck(block: nn.Module, shared: SharedWindows) -> PortableBottleneck | None:
    if not isinstance(block, Bottleneck) or not isinstance(block.mixer, HaloAttention):
        return None
    linear = (block.reduce, block.expand, *block.shortcut[:1])
    activations = (block.reduce_act, block.mixer_act, block.act)
    identities = (block.pool, block.reduce_norm, block.mixer_norm, block.expand_norm, block.squeeze_excitation)
    identities = (*identities, *block.shortcut[1:])
    if not (
        is_plain(block, block.mixer, block.shortcut, *linear, *activations, *identities)
        and all(isinstance(each, nn.Conv2d) for each in linear)
        and all(isinstance(each, tuple(ACTIVATIONS.values())) for each in activations)
        and all(isinstance(each, nn.Identity) for each in identities)
    ):
        return None
    mixer = _from_ours(block.mixer, shared)
    return None if mixer is None else PortableBottleneck(block, mixer)


def _from_ours(layer: HaloAttention, shared: SharedWindows) -> PortableAttention | None:
    width = layer.query_key_channels
    packed = layer.qkv if layer.stride == (1, 1) else layer.key_value
    query, first_key = (packed, width) if layer.stride == (1, 1) else (layer.query, 0)
    if not is_plain(query, packed):
        return None
    head_width = width // layer.num_heads
    scale = head_width**-0.5 if layer.scale is None else layer.scale
    tables = None
    if layer.row_embedding is not None and layer.column_embedding is not None:
        tables = (layer.row_embedding, layer.column_embedding)
    offset_strides = layer.stride if layer.offset_stride is None else layer.offset_stride
    if isinstance(offset_strides, int):
        offset_strides = (offset_strides, offset_strides)
    rows, columns = zip(layer.block_size, layer.halo_size, layer.stride, offset_strides, strict=True)
    return PortableAttention(
        as_linear(query, slice(width), scale),
        as_linear(packed, slice(first_key, first_key + width)),
        as_linear(packed, slice(first_key + width, None)),
        tables,
        positions=(layer.row_position, layer.column_position) if layer.position == "absolute" else None,
        num_heads=layer.num_heads,
        numbers=(rows, columns),
        border=layer.border,
        centered=layer.centered,
        shared=shared,
    )


def _from_timm(layer: Any, shared: SharedWindows) -> nn.Module | None:
    """Convert an `AcceleratedHaloAttn`, whose parts timm does not annotate."""
    if not is_plain(layer.q, layer.kv):
        return None
    # Keys and values of a head lie side by side.
    channels = torch.arange(layer.kv.out_channels).view(layer.num_heads, -1)
    numbers = (layer.block_size, layer.halo_size, layer.block_stride, 1)
    attention = PortableAttention(
        as_linear(layer.q, factor=layer.scale),
        as_linear(layer.kv, channels[:, : layer.dim_head_qk].flatten()),
        as_linear(layer.kv, channels[:, layer.dim_head_qk :].flatten()),
        tuple(layer._operator_table(table) for table in (layer.pos_embed.height_rel, layer.pos_embed.width_rel)),
        num_heads=layer.num_heads,
        numbers=(numbers, numbers),
        border="zeros",
        centered=False,
        shared=shared,
    )
    return nn.Sequential(attention, layer.pool)
