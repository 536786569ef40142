"""Figures of attention: one pixel, all heads, distances by layer, and rollout.

Every figure is a matplotlib `Figure` that notebooks show by themselves; `figure.savefig(path)` writes it.
"""

import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image
from torch import Tensor

from halonet.console import printable
from halonet.visual.attention import Box, LayerAttention, PixelAttention, rollout
from halonet.visual.curves import GRID, INK, set_style

QUERY, BLOCK, WINDOW, BORDER = "#ffffff", "#16e0bd", "#ffd166", "#2b2f36"
# From transparent over red to yellow, so that the picture shows through where nothing is looked at.
_HEAT_STOPS = {0.0: (120, 20, 90, 0.0), 0.35: (225, 40, 80, 0.62), 0.7: (255, 130, 40, 0.82), 1.0: (255, 240, 90, 0.95)}
MOST_COLUMNS = 5
FURTHEST = 0.5  # beyond the border, in sides of the image, that a figure shows


class Area(NamedTuple):
    """A part of the plane in pixels of the network's input; it may reach beyond the image."""

    top: float
    left: float
    bottom: float
    right: float


class NotebookFigure(Figure):
    """A figure that a notebook shows without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure, also one whose title the font cannot show; a folder that does not exist is made."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # it draws a box instead
        figure.savefig(path)
    return Path(path)


def input_picture(
    image: Float[Tensor, "1 channels height width"], mean: Sequence[float], std: Sequence[float]
) -> Image.Image:
    """Turn a network's input, normalized by `mean` and `std`, back into a picture."""
    pixels = image[0].cpu() * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    pixels = (pixels * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def draw_pixel(
    look: PixelAttention, picture: Image.Image, *, head: int | None = None, title: str = ""
) -> NotebookFigure:
    """Draw a pixel with its block, its window and the border, and beside it where it looks.

    Args:
        look: Of `LayerAttention.look`.
        picture: What the network was given; it is stretched to the size of the network's input.
        head: Counted from 0; None draws the mean over the heads.
        title: A title, such as the label.

    Raises:
        UserError: The layer has no such head.
    """
    heat = look.of_head(head)
    name = f"mean of {len(look.probabilities)} heads" if head is None else f"head {head}"
    return _draw(look, picture, [("pixel", None), (name, heat)], look.outside_of_head(head), title)


def draw_heads(look: PixelAttention, picture: Image.Image, *, title: str = "") -> NotebookFigure:
    """Draw where a pixel looks: the mean over the heads, then each head, all on one scale; see `draw_pixel`."""
    heads = [(f"head {head}", look.of_head(head)) for head in range(len(look.probabilities))]
    return _draw(look, picture, [("mean", look.of_head(None)), *heads], look.outside_of_head(None), title)


def draw_rollout(
    layers: Sequence[LayerAttention], pixel: tuple[int, int], picture: Image.Image, *, title: str = ""
) -> NotebookFigure:
    """Draw what `rollout` finds for a pixel, (row, column) of the network's input; see `draw_pixel`."""
    weights = rollout(layers, pixel)
    height, width = layers[-1].image_size
    figure, (axes,) = _figure(1, height / width, title)
    _show(axes, picture, (height, width))
    image = axes.imshow(weights.numpy(), cmap=_heat(), extent=(0, width, height, 0), vmin=0, interpolation="nearest")
    _mark_query(axes, float(pixel[0]), float(pixel[1]), 1.0, 1.0)
    axes.set_title(f"rollout of {len(layers)} layers", fontsize=9, color=INK)
    _add_scale(figure, image, [axes])
    return figure


def draw_distances(layers: Sequence[LayerAttention]) -> NotebookFigure:
    """Plot how far each head of each layer looks, and the mean of each layer; see `LayerAttention.mean_distances`."""
    figure = NotebookFigure(figsize=(max(4.5, 1.5 + 0.45 * len(layers)), 3.2), layout="constrained", dpi=150)
    axes = figure.subplots()
    means = []
    for index, layer in enumerate(layers):
        distances = layer.mean_distances().numpy()
        means.append(distances.mean())
        axes.plot([index] * len(distances), distances, "o", color="#4c78a8", alpha=0.65, markersize=5)
    axes.plot(means, color="#e4572e", linewidth=1.5, marker="_", markersize=14, zorder=1)
    axes.plot([], [], "o", color="#4c78a8", alpha=0.65, markersize=5, label="a head")
    axes.plot([], [], color="#e4572e", label="mean of the layer")
    set_style(axes, "how far attention looks", "attention layer, in the order of the network")
    axes.set_ylabel("mean distance (pixels of the input)", color=INK)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(min(len(layers), 20), integer=True))
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.legend(frameon=False, labelcolor=INK, fontsize=8)
    return figure


def _draw(
    look: PixelAttention, picture: Image.Image, panels: list[tuple[str, Tensor | None]], outside: float, title: str
) -> NotebookFigure:
    visible = visible_area(look.image_size, look.window, look.cell)
    figure, all_axes = _figure(len(panels), (visible.bottom - visible.top) / (visible.right - visible.left), title)
    largest = max(heat.max().item() for _, heat in panels if heat is not None)
    for axes, (name, heat) in zip(all_axes, panels, strict=True):
        draw_panel(axes, look, picture, heat, largest, visible)
        axes.set_title(name, fontsize=9, color=INK)
    _add_scale(figure, ScalarMappable(Normalize(0, largest), _heat()), all_axes)
    figure.legend(
        handles=[
            Rectangle((0, 0), 1, 1, facecolor=QUERY, edgecolor="black", label="pixel"),
            Rectangle((0, 0), 1, 1, fill=False, edgecolor=BLOCK, linewidth=2, label="block"),
            Rectangle((0, 0), 1, 1, fill=False, edgecolor=WINDOW, linewidth=2, linestyle="--", label="block with halo"),
            Rectangle((0, 0), 1, 1, fill=False, edgecolor=BORDER, linewidth=1, label="border of the image"),
        ],
        loc="outside lower center",
        ncols=4 if len(all_axes) > 1 else 2,
        frameon=False,
        fontsize=8,
        labelcolor=INK,
    )
    if outside > 0:
        figure.supxlabel(f"{100 * outside:.1f} % of the weight goes to zeros beyond the border", fontsize=8, color=INK)
    return figure


def draw_panel(
    axes: Axes, look: PixelAttention, picture: Image.Image, heat: Tensor | None, largest: float, visible: Area
) -> None:
    """Draw one panel: the picture, the probabilities `heat` on a scale from 0 to `largest`, and the boxes."""
    height, width = look.image_size
    _show(axes, picture, look.image_size)
    if heat is not None:
        _shade(axes, look)
        extent = (0, width, height, 0)
        axes.imshow(heat.numpy(), cmap=_heat(), extent=extent, vmin=0, vmax=largest, interpolation="nearest")
    _draw_boxes(axes, look)
    axes.set_xlim(visible.left, visible.right)
    axes.set_ylim(visible.bottom, visible.top)


def visible_area(image_size: tuple[int, int], box: Box, cell: tuple[float, float]) -> Area:
    """The part of the plane to show: the image, and a box of pixels of `cell` where it reaches beyond."""
    (height, width), (cell_height, cell_width) = image_size, cell
    down, right = FURTHEST * height, FURTHEST * width
    margin = 0.015 * max(height, width)
    return Area(
        max(-down, min(0, box.top * cell_height)) - margin,
        max(-right, min(0, box.left * cell_width)) - margin,
        min(height + down, max(height, box.bottom * cell_height)) + margin,
        min(width + right, max(width, box.right * cell_width)) + margin,
    )


def _figure(panels: int, aspect: float, title: str) -> tuple[NotebookFigure, list[Axes]]:
    columns = min(panels, MOST_COLUMNS)
    rows = math.ceil(panels / columns)
    size = (2.4 * columns + 0.9, 2.4 * aspect * rows + 0.9)
    figure = NotebookFigure(figsize=size, layout="constrained", dpi=150)
    all_axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in all_axes[panels:]:
        axes.remove()
    if title:
        # Class names such as "$5" or "\x1b" are not formulas or terminal commands.
        figure.suptitle(printable(title), fontsize=10, color=INK, parse_math=False)
    return figure, all_axes[:panels]


def _show(axes: Axes, picture: Image.Image, image_size: tuple[int, int]) -> None:
    height, width = image_size
    axes.imshow(np.asarray(picture.convert("RGB")), extent=(0, width, height, 0), interpolation="bicubic")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_facecolor("#f2f3f5")
    axes.patch.set(hatch="////", edgecolor="#d5d8dd")


def _shade(axes: Axes, look: PixelAttention) -> None:
    """Dim the part of the image that the pixel cannot see."""
    height, width = look.image_size
    shade = np.ones((*look.probabilities.shape[1:], 4), np.float32)
    shade[..., 3] = 0.45
    window = look.window
    shade[max(0, window.top) : window.bottom, max(0, window.left) : window.right, 3] = 0
    axes.imshow(shade, extent=(0, width, height, 0), interpolation="nearest")


def _draw_boxes(axes: Axes, look: PixelAttention) -> None:
    (height, width), (cell_height, cell_width) = look.image_size, look.cell
    axes.add_patch(Rectangle((0, 0), width, height, fill=False, edgecolor=BORDER, linewidth=1))
    for box, color, dashes in ((look.window, WINDOW, (0, (4, 2))), (look.block, BLOCK, "-")):
        corner = (box.left * cell_width, box.top * cell_height)
        size = ((box.right - box.left) * cell_width, (box.bottom - box.top) * cell_height)
        for edge, thickness, style in (("black", 3.0, "-"), (color, 1.8, dashes)):
            axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=edge, linewidth=thickness, linestyle=style))
    _mark_query(axes, look.query.row * cell_height, look.query.column * cell_width, cell_height, cell_width)


def _mark_query(axes: Axes, top: float, left: float, height: float, width: float) -> None:
    axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor="black", linewidth=2.4))
    axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=QUERY, linewidth=1.2))
    center = (left + width / 2, top + height / 2)
    axes.plot(*center, "o", color=QUERY, markersize=3.5, markeredgecolor="black", markeredgewidth=0.8)


def _add_scale(figure: Figure, mappable: ScalarMappable, all_axes: list[Axes]) -> None:
    bar = figure.colorbar(mappable, ax=all_axes, shrink=0.75, aspect=22, pad=0.015)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.ax.tick_params(labelsize=7, labelcolor=INK, length=2)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))


def _heat() -> ListedColormap:
    places, stops = list(_HEAT_STOPS), np.array(list(_HEAT_STOPS.values()))
    stops[:, :3] /= 255
    steps = np.linspace(0, 1, 256)
    return ListedColormap(np.stack([np.interp(steps, places, channel) for channel in stops.T], 1))
