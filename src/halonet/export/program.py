"""A network as an exported program of PyTorch, for any batch, height and width."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from jaxtyping import Float
from timm.layers.halo_attn import HaloAttn
from torch import Tensor, nn
from torch._dynamo.exc import UserError as DynamoUserError
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config

from halonet.errors import UserError
from halonet.export.portable import make_portable
from halonet.models.acceleration import AcceleratedHaloAttn
from halonet.rules import check_fields, check_together, within

INPUT = "image"
AXES = {INPUT: {0: "batch", 2: "height", 3: "width"}}
TRACED_BATCH = 2
_LEAST = re.compile(r"generated guard (\d+) <= L")  # as torch.export says which sizes it cannot take


class LeastSizeError(UserError):
    """A network, such as one of timm's that pools, cannot be traced for images as small as asked for."""

    def __init__(self, asked: int, least: int) -> None:
        super().__init__(f"the smallest size is {asked}, but PyTorch exports this network for at least {least} pixels")
        self.least = least


@dataclass(frozen=True)
class Bounds:
    """Sizes of images that a program takes, in pixels; they hold for the height and the width.

    Attributes:
        min_size: The smallest; 1 is possible for our networks.
        max_size: The largest, or None.
        max_batch: The most images at a time, or None.
    """

    min_size: Annotated[int, within(least=1, most=2_048)] = 1  # images of this size are run
    max_size: Annotated[int, within(least=2, most=65_536)] | None = None
    max_batch: Annotated[int, within(least=2, most=65_536)] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        fits = self.max_size is None or self.min_size < self.max_size
        check_together(self, {"min_size": (fits, f"less than max_size, which is {self.max_size}")})


class Deployable(nn.Module):
    """A network with what may stand before and after it.

    Args:
        network: Takes images [batch, channels, height, width].
        mean: Of each channel; with `std`, images with values in [0, 1] are normalized.
        std: Of each channel.
        softmax: Whether the outputs are probabilities.
        features: Whether the outputs are the feature maps of all levels of a `HaloNet`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        softmax: bool = False,
        features: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.softmax = softmax
        self.features = features
        self.is_normalizing = mean is not None and std is not None
        if mean is not None and std is not None:
            self.register_buffer("mean", torch.tensor(mean)[:, None, None])
            self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, image: Float[Tensor, "batch channels height width"]) -> Any:
        """Compute the logits, the probabilities, or the list of feature maps."""
        if self.is_normalizing:
            image = (image - self.mean) / self.std
        if self.features:
            return self.network.forward_intermediates(image, intermediates_only=True)  # pyright: ignore[reportCallIssue]
        output = self.network(image)
        return output.softmax(-1) if self.softmax else output


def trace(deployable: nn.Module, channels: int, side: int, bounds: Bounds | None = None) -> ExportedProgram:
    """Trace a network, for inference, in a form that takes any batch, height and width within bounds.

    Args:
        deployable: A `Deployable`, or a network that takes images [batch, channels, height, width]; not changed.
        channels: Of the images.
        side: Of the images to trace with, in pixels; it binds nothing.
        bounds: Of the sizes; None sets none.

    Raises:
        UserError: If there are layers of timm that take images of one size only, or PyTorch cannot leave the sizes
            open, as where a stage begins with pooling.
        LeastSizeError: If the network cannot be traced for images as small as the bounds allow.
    """
    refuse_plain_timm(deployable)
    return export_module(make_portable(deployable), channels, side, bounds or Bounds())


def export_module(module: nn.Module, channels: int, side: int, bounds: Bounds) -> ExportedProgram:
    """Trace a module that is in a form that can be exported, see `trace`."""
    dims = {
        0: Dim("batch", min=1, max=bounds.max_batch),
        2: Dim("height", min=bounds.min_size, max=bounds.max_size),
        3: Dim("width", min=bounds.min_size, max=bounds.max_size),
    }
    rows = max(side, bounds.min_size + 1)
    columns = rows + max(rows // 4, 1)
    if bounds.max_size is not None:
        rows, columns = min(rows, bounds.max_size), min(columns, bounds.max_size)
    image = torch.zeros(TRACED_BATCH, channels, rows, columns)
    # Without the patch, a side of one pixel or of one block would be ruled out.
    with torch.no_grad(), _config.patch("backed_size_oblivious", True):  # pyright: ignore[reportAttributeAccessIssue]
        try:
            return torch.export.export(module, (image,), dynamic_shapes=(dims,))
        except DynamoUserError as error:
            least = max((int(number) for number in _LEAST.findall(str(error))), default=0)
            if least > bounds.min_size:
                raise LeastSizeError(bounds.min_size, least) from error
            reason = " ".join(str(error).partition("\n  - ")[2].partition("\n")[0].split())
            raise UserError(f"PyTorch cannot export this network for all sizes within the bounds: {reason}") from error


def refuse_plain_timm(model: nn.Module) -> None:
    """Raise a `UserError` if a network has layers of timm that take images of one size only."""
    for name, module in model.named_modules():
        if isinstance(module, HaloAttn) and not isinstance(module, AcceleratedHaloAttn):
            raise UserError(
                f"{name or 'the network'} is timm's own HaloAttn, which takes images of one size only: call "
                "halonet.accelerate(network) first"
            )
