"""Pictures of where pixels look: attention weights of a model, laid over the image."""

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
    """Compute where some points of an image look, in the last attention layer of every stage.

    Args:
        network: A `HaloNet` in evaluation mode.
        image: What the network takes.
        points: (row, column) of each point as fractions of the image, from 0 to 1.

    Returns:
        By stage ("stage 1", ...), a map for each point: the mean over the heads, at the size of the image, with
        every pixel of a feature map spread over the pixels it stands for; each map's highest weight is 1.

    Raises:
        UserError: If the network has no attention layer.
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
    """Draw where some points look, one row a point and one column a stage, over the picture.

    Args:
        network: A `HaloNet` in evaluation mode.
        image: The picture as the network takes it.
        picture: The picture to draw on; scaled to the size of `image`.
        path: The file to write; its suffix says the format.
        points: (row, column) as fractions; None takes three on a diagonal.
        title: A line above, e.g. the label.

    Returns:
        The path.

    Raises:
        UserError: If matplotlib is not installed, or the network has no attention layer.
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
        panels = [("query", None), *((name, each[row].numpy()) for name, each in maps.items())]
        for axis, (name, heat) in zip(axes[row], panels, strict=True):
            axis.imshow(shown)
            if heat is not None:
                axis.imshow(heat, cmap="inferno", alpha=0.75, vmin=0, vmax=1)
            axis.plot(right * width - 0.5, down * height - 0.5, "o", color="#38e8c8", markersize=5, markeredgecolor="k")
            axis.set_axis_off()
            if row == 0:
                axis.set_title(name, fontsize=9)
    if title:
        # A class may be called "$5" or "\x1b": neither a formula nor a command.
        figure.suptitle(printable(title), fontsize=10, parse_math=False)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # it draws a box instead
        figure.savefig(path)
    return Path(path)
