"""The residual block of HaloNet and of its convolutional relatives."""

from jaxtyping import Float
from timm.layers.drop import DropPath
from timm.layers.squeeze_excite import SqueezeExcite
from torch import Tensor, nn

from halonet.layers.norm import BatchNormAct2d, normalize

ACTIVATIONS: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "relu": nn.ReLU}


class Bottleneck(nn.Module):
    """1x1 convolution, a spatial mixer, 1x1 convolution, and the shortcut (paper Table 2).

    1x1 -> BN -> act -> mixer -> BN -> act -> 1x1 -> BN (gamma starts at 0) -> SE -> add -> act. The shortcut is the
    identity if the shapes agree, else a strided 1x1 convolution with batch norm. The order and the zero gamma are those
    of ResNet; the paper does not state them.

    Args:
        in_channels: Channels of the input.
        width: Channels after the first 1x1 convolution (the stage width of Table 2).
        mixer: Mixes pixels: [batch, width, H, W] to [batch, mixer_channels, ceil(H / s), ceil(W / s)], where s is
            `stride`, or 1 if `pool` is set.
        mixer_channels: Channels that the mixer returns (r_v times the width for attention).
        out_channels: Channels of the output (r_b times the width).
        stride: Reduction of the block, 1 or 2.
        pool: Reduce by average pooling after the mixer (SASA) instead of in it.
        activation: "silu" or "relu".
        squeeze_excitation: Reduction ratio of squeeze-and-excitation, e.g. 1/8, or None to leave it out.
        drop_path: Probability of skipping the block in training (stochastic depth).
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        mixer: nn.Module,
        mixer_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        pool: bool = False,
        activation: str = "silu",
        squeeze_excitation: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        act = ACTIVATIONS[activation]
        self.reduce = nn.Conv2d(in_channels, width, 1, bias=False)
        self.reduce_norm = BatchNormAct2d(width)
        self.reduce_act = act(inplace=True)
        self.mixer = mixer
        self.pool = (
            nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False) if pool and stride > 1 else nn.Identity()
        )
        self.mixer_norm = BatchNormAct2d(mixer_channels)
        self.mixer_act = act(inplace=True)
        self.expand = nn.Conv2d(mixer_channels, out_channels, 1, bias=False)
        self.expand_norm = BatchNormAct2d(out_channels)
        nn.init.zeros_(self.expand_norm.weight)
        self.squeeze_excitation = (
            nn.Identity()
            if squeeze_excitation is None
            else SqueezeExcite(out_channels, rd_ratio=squeeze_excitation, act_layer=act)
        )
        self.drop_path = DropPath(drop_path)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.shortcut.append(nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(out_channels))
        self.act = act(inplace=True)

    def forward(
        self, x: Float[Tensor, "batch in_channels rows columns"]
    ) -> Float[Tensor, "batch out_channels out_rows out_columns"]:
        """Apply the block; sizes become ceil(size / stride)."""
        shortcut = self.shortcut(x)
        x = normalize(self.reduce(x), self.reduce_norm, self.reduce_act)
        x = self.pool(self.mixer(x))
        x = normalize(x, self.mixer_norm, self.mixer_act)
        x = self.expand(x)
        if self._adds_directly():
            return normalize(x, self.expand_norm, self.act, shortcut)
        return self.act(self.drop_path(self.squeeze_excitation(self.expand_norm(x))) + shortcut)

    def _adds_directly(self) -> bool:
        """Whether nothing stands between the last norm and the sum."""
        skips = self.training and self.drop_path.drop_prob
        return type(self.squeeze_excitation) is nn.Identity and not skips
