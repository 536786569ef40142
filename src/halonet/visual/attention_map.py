"""Attention maps: a model's attention weights, drawn over the image."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from halonet.console import printable
from halonet.errors import UserError
from halonet.installation import command_for_extra
from halonet.layers import HaloAttention
from halonet.models import HaloNet


def attention_maps(
    network: nn.Module, image: Float[Tensor, "1 channels height width"], points: list[tuple[float, float]]
) -> dict[str, Float[Tensor, "points height width"]]:
    """Compute the attention weights of some points in the last attention layer of every stage.

    Args:
        network: A `HaloNet` in evaluation mode.
        image: The network's input.
        points: (row, column) of each point as fractions of the image, from 0 to 1.

    Returns:
        By stage ("stage 1", ...), one map per point: the mean over the heads, scaled to the size of the image (nearest
        neighbor) and to a maximum of 1.

    Raises:
        UserError: The network has no attention layer.
    """
    inputs: dict[str, tuple[HaloAttention, Tensor]] = {}
    hooks = []
    for index, stage in enumerate(network.stages if isinstance(network, HaloNet) else (), 1):
        layers = [module for module in stage.modules() if isinstance(module, HaloAttention)]
        if layers:
            name = f"stage {index}"

            def keep(module: Any, args: Any, output: Any, name: str = name) -> None:
                inputs[name] = (module, args[0])

            hooks.append(layers[-1].register_forward_hook(keep))
    if not hooks:
        raise UserError("the model has no attention layer, so there are no attention maps to draw")
    with torch.inference_mode():
        network(image)
        for hook in hooks:
            hook.remove()
        return {name: _maps(layer, x, points, image.shape[2:]) for name, (layer, x) in inputs.items()}


def _maps(layer: HaloAttention, x: Tensor, points: list[tuple[float, float]], size: torch.Size) -> Tensor:
    queries = [-(-side // step) for side, step in zip(x.shape[2:], layer.stride, strict=True)]
    positions = [
        [min(int(fraction * count), count - 1) for fraction, count in zip(point, queries, strict=True)]
        for point in points
    ]
    weights, _ = layer.attention_weights(x, torch.tensor(positions, device=x.device))
    maps = F.interpolate(weights.mean(2).float(), size=tuple(size), mode="nearest")[0].cpu()
    return maps / maps.amax((1, 2), keepdim=True).clamp(min=1e-12)


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
        network: A `HaloNet` in evaluation mode.
        image: The network's input.
        picture: The picture to draw on; it is scaled to the size of `image`.
        path: The file to write; its suffix determines the format. Returned as a `Path`.
        points: (row, column) as fractions; None chooses three.
        title: A title, e.g. the label.

    Raises:
        UserError: matplotlib is not installed, or the network has no attention layer.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(f"attention maps need matplotlib: {command_for_extra('train')}") from error
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
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # it draws a box instead
        figure.savefig(path)
    return Path(path)
