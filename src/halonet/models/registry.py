"""Models by name: `halonet.create_model("h0")`, and every row for timm as `halonet_paper_h0`."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

from timm.models import build_model_with_cfg, register_model
from torch import nn

from halonet.complaints import RuleError
from halonet.errors import UserError, unknown_name
from halonet.models.config import HALONETS, STEMS, DropRate, HaloNetConfig, InChans, NumClasses
from halonet.models.halonet import HaloNet
from halonet.rules import check_arguments, check_values

TIMM_PREFIX = "halonet_paper_"
CONFIG_FIELDS = tuple(field.name for field in dataclasses.fields(HaloNetConfig))
MODEL_ARGUMENTS = ("num_classes", "in_chans", "drop_rate", "drop_path_rate", "global_pool")
FEATURE_ARGUMENTS = ("features_only", "out_indices", "feature_cls", "output_stride")
TIMM_ARGUMENTS = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


def create_model(
    name: str,
    num_classes: int = 1000,
    in_chans: int = 3,
    features_only: bool = False,
    pretrained: bool = False,
    **overrides: Any,
) -> nn.Module:
    """Build a model of the family, freshly initialized; works under `torch.device("meta")` too.

    Args:
        name: A row of `halonet.HALONETS`, e.g. "h0".
        num_classes: Classes; 0 leaves out the classifier.
        in_chans: Channels of the images.
        features_only: Return feature maps of all levels (or of `out_indices`) instead of logits, as timm does.
        pretrained: There are no trained weights of these models; True says so.
        **overrides: `drop_rate`, `drop_path_rate`, `global_pool`, `out_indices`, and any field of
            `halonet.HaloNetConfig`, e.g. `block_size=12`; lists, as YAML and JSON give them, serve as tuples.

    Returns:
        A `HaloNet`, or timm's feature extractor around it.

    Raises:
        UserError: If the name or a keyword is unknown (it names the nearest), a value breaks the rules of
            `HaloNetConfig`, or `pretrained` is asked for.
    """
    if name not in HALONETS:
        raise UserError(unknown_name("model", name, HALONETS))
    if pretrained:
        raise UserError(
            f"no trained weights of {name!r} exist. For a trained halo network take one of timm's, e.g. "
            "halonet.accelerate(timm.create_model('halonet50ts', pretrained=True))"
        )
    known = (*CONFIG_FIELDS, *MODEL_ARGUMENTS, *FEATURE_ARGUMENTS, *TIMM_ARGUMENTS)
    for keyword in overrides:
        if keyword not in known:
            raise UserError(unknown_name("model argument", keyword, known))
    check_arguments(
        num_classes=(num_classes, NumClasses),
        in_chans=(in_chans, InChans),
        drop_rate=(overrides.get("drop_rate", 0.0), DropRate),
        drop_path_rate=(overrides.get("drop_path_rate", 0.0), DropRate),
    )
    config = configure(name, **{keyword: overrides.pop(keyword) for keyword in CONFIG_FIELDS if keyword in overrides})
    if overrides.pop("output_stride", 32) != 32:
        raise UserError("output_stride: only 32 is possible, attention has no dilation")
    if features_only:
        levels = tuple(range(len(config.depths) + 1))
        overrides = {"features_only": True, "out_indices": levels, "feature_cls": "getter"} | overrides
    overrides.setdefault("pretrained_cfg", pretrained_cfg(config))
    return build_model_with_cfg(
        HaloNet,
        TIMM_PREFIX + name,
        False,
        config=config,
        num_classes=num_classes,
        in_chans=in_chans,
        **overrides,
    )


def configure(name: str, /, **changes: Any) -> HaloNetConfig:
    """Take a row of `halonet.HALONETS` with some fields changed; lists, as YAML and JSON give them, serve as tuples.

    Raises:
        UserError: If the name or fields are unknown (it names the nearest), or values break the rules.
    """
    if name not in HALONETS:
        raise UserError(unknown_name("model", name, HALONETS))
    try:
        return dataclasses.replace(HALONETS[name], **check_values(HaloNetConfig, changes))
    except RuleError as error:
        raise RuleError.of(f"model {name!r}", error.complaints) from error


def pretrained_cfg(config: HaloNetConfig) -> dict[str, Any]:
    """How images are prepared for a model, in timm's terms; `url` is empty because no weights exist."""
    reduction = STEMS[config.stem].reduction
    side = -(-config.image_size // (reduction * 2 ** (len(config.depths) - 1)))
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, config.image_size, config.image_size),
        "pool_size": (side, side),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": "stem.conv",
        "classifier": "classifier",
        "license": "apache-2.0",
    }


def _register(name: str) -> None:
    """Register one row with timm, which wants a function of that name in the module of `default_cfgs`."""

    def build(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return create_model(name, pretrained=pretrained, **kwargs)

    build.__name__ = build.__qualname__ = TIMM_PREFIX + name
    build.__module__ = __name__
    build.__doc__ = f"Row {name!r} of halonet.HALONETS."
    entry: Callable[..., nn.Module] = register_model(build)
    setattr(sys.modules[__name__], TIMM_PREFIX + name, entry)


default_cfgs = {TIMM_PREFIX + name: pretrained_cfg(config) for name, config in HALONETS.items()}
for _name in HALONETS:
    _register(_name)
