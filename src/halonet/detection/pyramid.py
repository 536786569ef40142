"""A HaloNet under a feature pyramid: what torchvision's detectors ask of a backbone."""

from collections import OrderedDict
from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from halonet.models import HaloNet


class Pyramid(nn.Module):
    """The stages of a HaloNet under a feature pyramid network (FPN, arXiv:1612.03144).

    Args:
        body: The network; its classifier and final convolution are removed.
        channels: Width of the pyramid.
        frozen_stages: How many stages, with the stem if not 0, do not learn and keep their batch norm statistics.
        frozen_batch_norm: Whether all batch norms of the body do not learn and keep their statistics.

    Attributes:
        reductions: Image pixels per pixel of each level, finest first; the last is the extra, pooled level.
        out_channels: Width of the pyramid, as torchvision calls it.
    """

    def __init__(
        self, body: HaloNet, channels: int = 256, *, frozen_stages: int = 0, frozen_batch_norm: bool = False
    ) -> None:
        super().__init__()
        body.prune_intermediate_layers(len(body.stages), prune_head=True)
        body.final = nn.Sequential()
        self.body = body
        self.frozen_stages = frozen_stages
        self.frozen_batch_norm = frozen_batch_norm
        stages = body.feature_info[1:]
        self.pyramid = FeaturePyramidNetwork([stage["num_chs"] for stage in stages], channels, LastLevelMaxPool())
        self.reductions = (*(stage["reduction"] for stage in stages), 2 * stages[-1]["reduction"])
        self.out_channels = channels
        for module in self._frozen():
            module.requires_grad_(False)
        self.train(self.training)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Mapping[str, Tensor]:
        """Compute the maps of all levels, finest first: "0", "1", ..., and "pool", which has every second pixel."""
        stages = self.body.forward_intermediates(x, len(self.body.stages), intermediates_only=True)
        return self.pyramid(OrderedDict((str(level), features) for level, features in enumerate(stages)))

    def train(self, mode: bool = True) -> "Pyramid":
        """Set the mode of everything that is not frozen."""
        super().train(mode)
        for module in self._frozen():
            module.eval()
        return self

    def _frozen(self) -> list[nn.Module]:
        frozen: list[nn.Module] = []
        if self.frozen_stages:
            frozen += [self.body.stem, *list(self.body.stages)[: self.frozen_stages]]
        if self.frozen_batch_norm:
            frozen += [module for module in self.body.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        return frozen
