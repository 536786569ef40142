"""The picture of attention on the demo page, and the pixel that a click on it means."""

import math
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from halonet.visual.attention import Box, LayerAttention
from halonet.visual.attention_figures import Area, draw_panel, visible_area

SIDE = 640  # pixels of the longer side


class View(NamedTuple):
    """What of a network's attention is shown.

    Attributes:
        pixel: (row, column) of the network's input.
        layer: Counted from 0.
        head: Counted from 0; None is the mean over the heads.
    """

    pixel: tuple[int, int]
    layer: int
    head: int | None


def draw_view(layers: list[LayerAttention], seen: Image.Image, view: View) -> Image.Image:
    """Draw where a pixel looks, over the network's input; all pictures of a layer show the same area."""
    layer = layers[view.layer]
    look = layer.look(view.pixel)
    heat = look.of_head(view.head)
    area = area_of(layer)
    width, height = canvas_size(area)
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    draw_panel(axes, look, seen, heat, heat.max().item(), area)
    axes.set_aspect("auto")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def describe_view(layers: list[LayerAttention], view: View) -> str:
    """Say in words what `draw_view` draws."""
    layer = layers[view.layer]
    look = layer.look(view.pixel)
    heat = look.of_head(view.head)
    row, column = (int(at) for at in np.unravel_index(int(heat.argmax()), heat.shape))
    height, width = look.cell
    who = f"the mean of its {layer.num_heads} heads" if view.head is None else f"head {view.head}"
    outside = look.outside_of_head(view.head)
    beyond = f" {100 * outside:.1f} % go beyond the border." if outside > 0 else ""
    return (
        f"**Layer {view.layer}** of 0 to {len(layers) - 1} works on {layer.map_size[0]} x {layer.map_size[1]} cells. "
        f"For the pixel in row {view.pixel[0]}, column {view.pixel[1]}, {who} looks most, with "
        f"**{100 * heat.max().item():.1f} %**, at the cell around row {round((row + 0.5) * height)}, "
        f"column {round((column + 0.5) * width)}.{beyond}"
    )


def area_of(layer: LayerAttention) -> Area:
    """The part of the plane that holds the window of every pixel."""
    rows, columns = layer.geometry.rows, layer.geometry.columns
    bottom, right = (axis.size if layer.geometry.centered else axis.num_blocks * axis.block for axis in (rows, columns))
    reach = Box(-rows.halo, -columns.halo, bottom + rows.halo, right + columns.halo)
    cell = layer.image_size[0] / rows.size, layer.image_size[1] / columns.size
    return visible_area(layer.image_size, reach, cell)


def canvas_size(area: Area) -> tuple[int, int]:
    """Width and height in pixels of the picture of an area."""
    width, height = area.right - area.left, area.bottom - area.top
    scale = SIDE / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def pixel_at(layer: LayerAttention, x: int, y: int) -> tuple[int, int]:
    """The pixel of the network's input at a place of the picture; beyond the border, the nearest one."""
    area = area_of(layer)
    width, height = canvas_size(area)
    row = math.floor(area.top + (y + 0.5) * (area.bottom - area.top) / height)
    column = math.floor(area.left + (x + 0.5) * (area.right - area.left) / width)
    return min(max(row, 0), layer.image_size[0] - 1), min(max(column, 0), layer.image_size[1] - 1)
