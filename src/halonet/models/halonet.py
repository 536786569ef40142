"""The network, top to bottom as in the paper's Table 2: stem, stages, final convolution, classifier."""

from collections import OrderedDict

import torch
import torch.fx
import torch.nn.functional as F
from jaxtyping import Float
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from halonet.errors import UserError
from halonet.layers.bottleneck import ACTIVATIONS, Bottleneck
from halonet.layers.global_pool import GlobalPool
from halonet.layers.halo_attention import HaloAttention
from halonet.layers.norm import BatchNormAct2d, ConvNormAct
from halonet.layers.stage import Stage
from halonet.models.config import STEMS, HaloNetConfig, scaled
from halonet.ops.tracing import refuse_torchscript
from halonet.ops.transforms import channels_last


class HaloNet(nn.Module):
    """A network of local self-attention, or of convolutions, or of both, as its configuration says.

    Takes images of any size in NCHW; inside, and in every feature map returned, memory is channels_last.

    Args:
        config: A row of `HALONETS`, or one of your own.
        num_classes: Classes; 0 leaves out the classifier.
        in_chans: Channels of the images.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0 with depth.
        global_pool: "avg", or "" for none, which needs `num_classes=0` (the head then returns the feature map).

    Raises:
        UserError: Classes without pooling.
    """

    def __init__(
        self,
        config: HaloNetConfig,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate

        self.stem, reduction = make_stem(config, in_chans)
        max_pool = STEMS[config.stem].reduction > reduction
        self.stem_pool = nn.MaxPool2d(3, stride=2, padding=1) if max_pool else nn.Identity()
        self.feature_info = [{"num_chs": config.stem_width, "reduction": reduction, "module": "stem"}]
        reduction = STEMS[config.stem].reduction

        channels, blocks_before, stages = config.stem_width, 0, []
        for stage, depth in enumerate(config.depths):
            out_channels = scaled(config.widths[stage], config.bottleneck_ratio)
            blocks = []
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                drop_path = drop_path_rate * (blocks_before + index) / max(sum(config.depths) - 1, 1)
                blocks.append(make_block(config, stage, channels, out_channels, stride, reduction, drop_path))
                channels, reduction = out_channels, reduction * stride
            blocks_before += depth
            stages.append(Stage(*blocks))
            self.feature_info.append({"num_chs": channels, "reduction": reduction, "module": f"stages.{stage}"})
        self.stages = nn.Sequential(*stages)

        self.final = nn.Sequential()
        if config.final_width is not None:
            self.final = ConvNormAct(
                nn.Conv2d(channels, config.final_width, 1, bias=False),
                BatchNormAct2d(config.final_width),
                ACTIVATIONS[config.activation](inplace=True),
            )
        self.num_features = self.head_hidden_size = config.final_width or channels
        self.global_pool = GlobalPool(global_pool)
        self.head_drop = nn.Dropout(drop_rate)
        check_pooling(num_classes, global_pool)
        self.classifier = make_classifier(self.num_features, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch *outputs"]:
        """Classify images: [batch, num_classes] logits."""
        return self.forward_head(self.forward_features(x))

    def forward_features(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch num_features rows columns"]:
        """Compute the last feature map, before pooling."""
        x = self.stem_pool(self._run_stem(x))
        return self.final(self.stages(x))

    def forward_head(
        self, x: Float[Tensor, "batch num_features rows columns"], pre_logits: bool = False
    ) -> Float[Tensor, "batch *outputs"]:
        """Pool and classify the last feature map; with `pre_logits`, only pool it."""
        x = self.head_drop(self.global_pool(x))
        if pre_logits:
            return x
        check_pooling(self.num_classes, getattr(self.global_pool, "pool_type", "avg"))
        return self.classifier(x)

    def forward_intermediates(
        self,
        x: Float[Tensor, "batch channels height width"],
        indices: int | list[int] | tuple[int, ...] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Compute feature maps of chosen levels: 0 is the stem, then the stages (timm's interface).

        Args:
            x: Images.
            indices: The levels; an int n takes the last n, None takes all.
            norm: Has no effect: these networks have no norm on features.
            stop_early: Compute nothing beyond the last level asked for.
            output_fmt: "NCHW", the only one.
            intermediates_only: Return the list alone instead of (last feature map, list).

        Raises:
            ValueError: If another `output_fmt` is asked for.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt is {output_fmt!r}, but must be 'NCHW'")
        wanted, last = feature_take_indices(len(self.stages) + 1, as_list(indices))
        x = self._run_stem(x)
        features = [x] if 0 in wanted else []
        x = self.stem_pool(x)
        for level, stage in enumerate(self.stages[:last] if stop_early else self.stages, 1):
            x = stage(x)
            if level in wanted:
                features.append(x)
        return features if intermediates_only else (self.final(x), features)

    def prune_intermediate_layers(
        self, indices: int | list[int] | tuple[int, ...] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop what the chosen levels do not need (timm's interface); returns the levels."""
        wanted, last = feature_take_indices(len(self.stages) + 1, as_list(indices))
        if last < len(self.stages):
            self.stages = self.stages[:last]
            self.final = nn.Sequential()
            if last == 0:
                self.stem_pool = nn.Identity()
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
        if prune_head or last < len(self.stages):
            self.reset_classifier(0, "")
        return wanted

    def get_classifier(self, name_only: bool = False) -> nn.Module | str:
        """Return the classifier, or its name."""
        return "classifier" if name_only else self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier with a new one (none for 0 classes), and the pooling unless it is None.

        Raises:
            UserError: Classes without pooling.
        """
        if global_pool is not None:
            check_pooling(num_classes, global_pool)
            self.global_pool = GlobalPool(global_pool).train(self.training)
        self.num_classes = num_classes
        parameter = next(self.parameters())
        classifier = make_classifier(self.num_features, num_classes).to(parameter.device, parameter.dtype)
        self.classifier = classifier.train(self.training)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks in the backward pass instead of keeping their activations; results stay the same."""
        for module in self.modules():
            if isinstance(module, Stage):
                module.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Regular expressions that order the parameters by depth, for layer-wise learning rates (timm)."""
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)"}

    def no_weight_decay(self) -> set[str]:
        """Names of the position tables, which take no weight decay (ours)."""
        return {name for name, _ in self.named_parameters() if name.endswith(("_embedding", "_position"))}

    def _run_stem(self, x: Tensor) -> Tensor:
        return self.stem(prepare_images(x, self.in_chans))

    def __prepare_scriptable__(self) -> None:
        refuse_torchscript()


@torch.fx.wrap
def prepare_images(x: Tensor, in_chans: int) -> Tensor:
    """Check the shape of images, and bring them into channels_last memory."""
    if x.dim() != 4 or x.shape[1] != in_chans:
        raise ValueError(f"images have shape {list(x.shape)}; expected [batch, {in_chans}, height, width]")
    return channels_last(x)


def as_list(indices: int | list[int] | tuple[int, ...] | None) -> int | list[int] | None:
    """Convert a tuple to a list, for timm."""
    return list(indices) if isinstance(indices, tuple) else indices


class PatchConv2d(nn.Conv2d):
    """A projection of patches; zero rows and columns at the bottom and right complete the last ones."""

    def forward(
        self, input: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels rows columns"]:
        """Project the patches of an image."""
        rows, columns = self.stride
        return super().forward(F.pad(input, (0, -input.shape[3] % columns, 0, -input.shape[2] % rows)))


def make_stem(config: HaloNetConfig, in_chans: int) -> tuple[nn.Sequential, int]:
    """Build the stem up to its pooling; return it and its stride."""
    kernel, stride, _ = STEMS[config.stem]
    norm = BatchNormAct2d(config.stem_width)
    if config.stem.startswith("patch"):  # the paper calls it a linear projection
        convolution = PatchConv2d(in_chans, config.stem_width, kernel, stride, bias=False)
        act = nn.Identity()
    else:
        convolution = nn.Conv2d(in_chans, config.stem_width, kernel, stride, kernel // 2, bias=False)
        act = ACTIVATIONS[config.activation](inplace=True)
    return ConvNormAct(OrderedDict(conv=convolution, norm=norm, act=act)), stride


def make_block(
    config: HaloNetConfig,
    stage: int,
    in_channels: int,
    out_channels: int,
    stride: int,
    reduction: int,
    drop_path: float,
) -> Bottleneck:
    """Build one block of a stage (counted from 0) on a map of image_size / reduction pixels a side."""
    width = config.widths[stage]
    pool = False
    if stage + 1 in config.convolution_stages:
        mixer_channels = width
        mixer = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
    else:
        mixer_channels = scaled(width, config.value_ratio)
        pool = config.downsampling == "pool"
        side = -(-config.image_size // reduction)
        mixer = HaloAttention(
            width,
            num_heads=config.num_heads[stage],
            block_size=config.block_size,
            halo_size=config.halo_size,
            query_key_channels=scaled(width, config.query_key_ratio),
            value_channels=mixer_channels,
            stride=1 if pool else stride,
            position=config.position,
            embedding=config.embedding,
            feature_size=(side, side),
            border=config.border,
            centered=config.centered,
        )
    return Bottleneck(
        in_channels,
        width,
        mixer,
        mixer_channels,
        out_channels,
        stride=stride,
        pool=pool,
        activation=config.activation,
        squeeze_excitation=(config.squeeze_excitation_ratio if stage + 1 in config.squeeze_excitation_stages else None),
        drop_path=drop_path,
    )


def check_pooling(num_classes: int, pool_type: str) -> None:
    """Refuse classes without pooling."""
    if num_classes and not pool_type:
        raise UserError(
            f"global_pool is '', but {num_classes:,} classes need 'avg': take global_pool='avg', or num_classes=0 for "
            "feature maps"
        )


def make_classifier(num_features: int, num_classes: int) -> nn.Module:
    """Build the last layer; the weights start small, the bias at zero."""
    if num_classes == 0:
        return nn.Identity()
    classifier = nn.Linear(num_features, num_classes)
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)
    return classifier
