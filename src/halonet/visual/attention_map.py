"""Attention maps: an overview of where a few pixels look, drawn over the image."""

from pathlib import Path

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from halonet.console import printable
from halonet.visual.attention import record_attention
from halonet.visual.attention_figures import save_figure


def attention_maps(
    network: nn.Module, image: Float[Tensor, "1 channels height width"], points: list[tuple[float, float]]
) -> dict[str, Float[Tensor, "points height width"]]:
    """Compute the attention weights of some points in the last attention layer of every stage.

    Args:
        network: As for `record_attention`.
        image: The network's input.
        points: (row, column) of each point as fractions of the image, from 0 to 1.

    Returns:
        By stage ("stage 1", ...), or by layer in a network without stages, one map per point: the mean over the heads,
        scaled to the size of the image (nearest neighbor) and to a maximum of 1.

    Raises:
        UserError: As `record_attention`.
    """
    height, width = image.shape[2:]
    pixels = [(min(int(row * height), height - 1), min(int(column * width), width - 1)) for row, column in points]
    last = {_stage_of(layer.name): layer for layer in record_attention(network, image)}
    maps = {}
    for name, layer in last.items():
        weights, _ = layer.weights([layer.query_of(pixel) for pixel in pixels])
        scaled = F.interpolate(weights.mean(1).float()[None], size=(height, width), mode="nearest")[0]
        maps[name] = scaled / scaled.amax((1, 2), keepdim=True).clamp(min=1e-12)
    return maps


def _stage_of(layer: str) -> str:
    """The stage of a layer such as "stages.0.1.mixer", counted from 1."""
    parts = layer.split(".")
    return f"stage {int(parts[1]) + 1}" if parts[0] == "stages" and parts[1].isdecimal() else layer


def draw_attention(
    network: nn.Module,
    image: Float[Tensor, "1 channels height width"],
    picture: Image.Image,
    path: str | Path,
    *,
    points: list[tuple[float, float]] | None = None,
    title: str = "",
) -> Path:
    """Draw attention maps over a picture, with a row per point and a column per stage.

    Args:
        network: As for `record_attention`.
        image: The network's input.
        picture: What the network was given, see `input_picture`; it is scaled to the size of `image`.
        path: The file to write; its suffix determines the format. Returned as a `Path`.
        points: (row, column) as fractions; None chooses three.
        title: A title, e.g. the label.

    Raises:
        UserError: As `record_attention`.
    """
    points = points or [(0.3, 0.5), (0.5, 0.5), (0.75, 0.4)]
    maps = attention_maps(network, image, points)
    height, width = image.shape[2:]
    shown = np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))
    columns = 1 + len(maps)
    figure = Figure(figsize=(2.1 * columns, 2.1 * len(points) * height / width + 0.5), layout="constrained", dpi=150)
    axes = figure.subplots(len(points), columns, squeeze=False)
    for row, (down, right) in enumerate(points):
        panels = [("query", None), *((name, stage_maps[row].numpy()) for name, stage_maps in maps.items())]
        for axis, (name, heat) in zip(axes[row], panels, strict=True):
            axis.imshow(shown)
            if heat is not None:
                axis.imshow(heat, cmap="inferno", alpha=0.75, vmin=0, vmax=1)
            axis.plot(right * width - 0.5, down * height - 0.5, "o", color="#38e8c8", markersize=5, markeredgecolor="k")
            axis.set_axis_off()
            if row == 0:
                axis.set_title(name, fontsize=9)
    if title:
        # Class names such as "$5" or "\x1b" are not formulas or terminal commands.
        figure.suptitle(printable(title), fontsize=10, parse_math=False)
    return save_figure(figure, path)
