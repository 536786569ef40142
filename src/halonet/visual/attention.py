"""What the attention layers of a network do with one image: exact probabilities, distances and rollout."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from timm.layers.halo_attn import HaloAttn
from torch import Tensor, nn

from halonet.complaints import must_be
from halonet.errors import UserError
from halonet.layers import HaloAttention
from halonet.models.acceleration import AcceleratedHaloAttn
from halonet.ops.attention.geometry import Axis, Geometry
from halonet.ops.attention.reference import window_of

# Limits of what is computed at a time: queries, and probabilities.
MOST_QUERIES = 64
MOST_WEIGHTS = 2**24


class Position(NamedTuple):
    """A pixel."""

    row: int
    column: int


class Box(NamedTuple):
    """The pixels in rows `top` to `bottom - 1` and columns `left` to `right - 1`."""

    top: int
    left: int
    bottom: int
    right: int


class PixelAttention(NamedTuple):
    """Where one pixel looks in one layer; the position and the boxes are in pixels of the layer's feature map.

    Attributes:
        layer: The layer's name in the network.
        probabilities: Of each head, over the feature map; 0 outside the window.
        outside: Of each head, the probability that went to zeros beyond the border; 0 if the layer masks the border.
            The probabilities and it sum to 1.
        query: The pixel that the query stands at.
        block: The query's block, which reaches beyond the map where the map cuts it off.
        window: The pixels that the query may look at, also beyond the map.
        image_size: Height and width of the network's input.
    """

    layer: str
    probabilities: Float[Tensor, "heads rows columns"]
    outside: Float[Tensor, " heads"]
    query: Position
    block: Box
    window: Box
    image_size: tuple[int, int]

    @property
    def cell(self) -> tuple[float, float]:
        """Height and width of a pixel of the feature map, in pixels of the network's input."""
        (height, width), (rows, columns) = self.image_size, self.probabilities.shape[1:]
        return height / rows, width / columns

    def of_head(self, head: int | None) -> Float[Tensor, "rows columns"]:
        """The probabilities of a head, counted from 0; None takes the mean over the heads.

        Raises:
            UserError: The layer has no such head.
        """
        if head is None:
            return self.probabilities.mean(0)
        check_index("head", head, len(self.probabilities))
        return self.probabilities[head]

    def outside_of_head(self, head: int | None) -> float:
        """The probability that went to zeros beyond the border, of the head or of the mean that `of_head` takes."""
        return (self.outside.mean() if head is None else self.outside[head]).item()


@dataclass(frozen=True)
class LayerAttention:
    """An attention layer and the feature map that it was given, see `record_attention`.

    Attributes:
        name: The layer's name in the network.
        layer: The layer, a `HaloAttention` or an accelerated one of timm.
        features: The feature map, [1, channels, rows, columns].
        geometry: Blocks, windows and queries of that feature map.
        image_size: Height and width of the network's input.
    """

    name: str
    layer: Any
    features: Tensor
    geometry: Geometry
    image_size: tuple[int, int]

    @property
    def num_heads(self) -> int:
        """Heads of the layer."""
        return self.layer.num_heads

    @property
    def map_size(self) -> tuple[int, int]:
        """Rows and columns of the feature map."""
        return self.geometry.rows.size, self.geometry.columns.size

    @property
    def query_grid(self) -> tuple[int, int]:
        """Rows and columns of queries: those of the feature map, or fewer if the layer has a stride."""
        return self.geometry.rows.num_queries, self.geometry.columns.num_queries

    def weights(
        self, queries: Sequence[tuple[int, int]]
    ) -> tuple[Float[Tensor, "points heads rows columns"], Float[Tensor, "points heads"]]:
        """The exact probabilities of queries, given as rows and columns of the query grid; see `PixelAttention`."""
        positions = torch.tensor(queries, device=self.features.device)
        with torch.inference_mode():
            inside, outside = self.layer.attention_weights(self.features, positions)
        return inside[0].cpu(), outside[0].cpu()

    def query_of(self, pixel: tuple[int, int]) -> Position:
        """Find the query, in rows and columns of the query grid, that covers a pixel of the network's input.

        Raises:
            UserError: The pixel lies outside the input.
        """
        check_pixel(pixel, self.image_size)
        axes = (self.geometry.rows, self.geometry.columns)
        return Position(
            *(
                at * axis.size // side // axis.stride
                for at, axis, side in zip(pixel, axes, self.image_size, strict=True)
            )
        )

    def look(self, pixel: tuple[int, int]) -> PixelAttention:
        """Compute where a pixel of the network's input, (row, column) from 0, looks.

        Raises:
            UserError: The pixel lies outside the input.
        """
        query = self.query_of(pixel)
        inside, outside = self.weights([query])
        rows = _span(query.row, self.geometry.rows, self.geometry.centered)
        columns = _span(query.column, self.geometry.columns, self.geometry.centered)
        return PixelAttention(
            self.name,
            inside[0],
            outside[0],
            Position(rows.pixel, columns.pixel),
            Box(rows.block[0], columns.block[0], rows.block[1], columns.block[1]),
            Box(rows.window[0], columns.window[0], rows.window[1], columns.window[1]),
            self.image_size,
        )

    def mean_distances(self) -> Float[Tensor, " heads"]:
        """How far each head looks: the mean distance in pixels of the input, over all queries and their probabilities.

        What went to zeros beyond the border does not count.
        """
        height, width = (side / size for side, size in zip(self.image_size, self.map_size, strict=True))
        rows, columns = (torch.arange(size, dtype=torch.float32) for size in self.map_size)
        queries = [(row, column) for row in range(self.query_grid[0]) for column in range(self.query_grid[1])]
        sums = torch.zeros(self.num_heads, dtype=torch.float64)
        for some in _chunks(queries, self):
            inside, outside = self.weights(some)
            at = torch.tensor(some, dtype=torch.float32) * torch.tensor(self._strides())
            down = (rows - at[:, :1]) * height
            right = (columns - at[:, 1:]) * width
            distances = torch.hypot(down[:, :, None], right[:, None, :])
            means = (inside * distances[:, None]).sum((2, 3)) / (1 - outside).clamp(min=1e-12)
            sums += means.double().sum(0)
        return (sums / len(queries)).float()

    def _strides(self) -> tuple[int, int]:
        return self.geometry.rows.stride, self.geometry.columns.stride


class _Span(NamedTuple):
    """Along one axis: the pixel of a query, and the first and last + 1 of its block and of its window."""

    pixel: int
    block: tuple[int, int]
    window: tuple[int, int]


def _span(query: int, axis: Axis, centered: bool) -> _Span:
    pixel = query * axis.stride
    top = pixel // axis.block * axis.block
    window = window_of(torch.tensor([query]), axis, centered)[0][0]
    return _Span(pixel, (top, top + axis.block), (int(window[0]), int(window[-1]) + 1))


def _chunks(queries: list[tuple[int, int]], layer: LayerAttention) -> Iterator[list[tuple[int, int]]]:
    step = max(1, min(MOST_QUERIES, MOST_WEIGHTS // (layer.num_heads * layer.map_size[0] * layer.map_size[1])))
    for start in range(0, len(queries), step):
        yield queries[start : start + step]


def record_attention(network: nn.Module, image: Float[Tensor, "1 channels height width"]) -> list[LayerAttention]:
    """Run a network on an image and keep what its attention layers were given.

    Args:
        network: In evaluation mode: one of this package, or one of timm after `halonet.accelerate`.
        image: The network's input.

    Returns:
        The attention layers, in the order in which they ran.

    Raises:
        UserError: The network has no attention layers, is in training mode, or has layers of timm that are not
            accelerated; or there is not exactly one image.
    """
    if image.dim() != 4 or image.shape[0] != 1:
        raise UserError(
            f"image has shape {list(image.shape)}, but must be [1, channels, height, width]: one image, as the network "
            "takes it"
        )
    layers: dict[str, Any] = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, HaloAttention | AcceleratedHaloAttn)
    }
    if any(type(module) is HaloAttn for module in network.modules()):
        raise UserError("the network has HaloAttn layers of timm: call halonet.accelerate(network) first")
    if not layers:
        raise UserError("the model has no attention layer, so there are no attention maps to draw")
    if network.training:
        raise UserError("the network is in training mode, where it computes something else: call network.eval() first")
    with _kept_inputs(layers) as inputs, torch.inference_mode():
        network(image)
    height, width = image.shape[2:]
    return [
        LayerAttention(name, layers[name], x, layers[name].geometry(*x.shape[2:]), (height, width))
        for name, x in inputs.items()
    ]


@contextmanager
def _kept_inputs(layers: dict[str, Any]) -> Iterator[dict[str, Tensor]]:
    """The input of each layer, by its name, in the order of the calls."""
    inputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, args: inputs.__setitem__(name, args[0].clone())  # the network may change it in place

    hooks = [layer.register_forward_pre_hook(keep(name)) for name, layer in layers.items()]
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()


def rollout(layers: Sequence[LayerAttention], pixel: tuple[int, int]) -> Float[Tensor, "rows columns"]:
    """Follow attention from a pixel of the last layer back through all layers (attention rollout, arXiv:2005.00928).

    In every layer, half of the weight stays at the pixel (the shortcut) and half goes where the mean over the heads
    looks. Where the next layer's map is coarser or finer, weight is spread evenly over the area of a pixel.
    Convolutions are passed over, so this shows what attention alone could have carried.

    Args:
        layers: As `record_attention` returns them, or some of them.
        pixel: (row, column) of the network's input, from 0.

    Returns:
        Weights over the feature map of the first layer, which sum to 1.

    Raises:
        UserError: There is no layer, or the pixel lies outside the input.
    """
    if not layers:
        raise UserError("rollout needs at least one layer, but layers is empty")
    grid = torch.zeros(layers[-1].query_grid)
    grid[layers[-1].query_of(pixel)] = 1
    for layer in reversed(layers):
        if grid.shape != layer.query_grid:
            grid = _spread(grid.shape[0], layer.query_grid[0]) @ grid @ _spread(grid.shape[1], layer.query_grid[1]).T
        grid = _back_through(layer, grid)
    return grid / grid.sum()


def _back_through(layer: LayerAttention, grid: Float[Tensor, "query_rows query_columns"]) -> Tensor:
    """Carry weight from a layer's queries to its keys."""
    result = torch.zeros(layer.map_size)
    row_stride, column_stride = layer._strides()
    result[::row_stride, ::column_stride] = 0.5 * grid
    queries = [(int(row), int(column)) for row, column in grid.nonzero()]
    for some in _chunks(queries, layer):
        inside, _ = layer.weights(some)
        amounts = torch.stack([grid[query] for query in some])
        result += 0.5 * torch.einsum("p,pyx->yx", amounts, inside.float().mean(1))
    return result


def _spread(old: int, new: int) -> Float[Tensor, "new old"]:
    """Along one axis: the part of each old pixel's area that lies in each new one."""
    edges_of_new, edges_of_old = torch.arange(new + 1) / new, torch.arange(old + 1) / old
    upper = torch.minimum(edges_of_new[1:, None], edges_of_old[None, 1:])
    lower = torch.maximum(edges_of_new[:-1, None], edges_of_old[None, :-1])
    return (upper - lower).clamp(min=0) * old


def check_pixel(pixel: tuple[int, int], image_size: tuple[int, int]) -> None:
    """Raise a `UserError` for a pixel outside an image."""
    height, width = image_size
    if not (0 <= pixel[0] < height and 0 <= pixel[1] < width):
        words = f"a row from 0 to {height - 1} and a column from 0 to {width - 1} of the network's input"
        raise must_be("pixel", tuple(pixel), words).error()


def check_index(name: str, index: int, count: int) -> None:
    """Raise a `UserError` for an index that is not one of `count`."""
    if not 0 <= index < count:
        raise must_be(name, index, f"from 0 to {count - 1}" if count > 1 else "0, the only one").error()
