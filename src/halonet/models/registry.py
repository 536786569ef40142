"""Models by name: `halonet.create_model("h0")`, and every row for timm as `halonet_paper_h0`."""

import dataclasses
import sys
import textwrap
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from timm.models import PretrainedCfg, build_model_with_cfg, register_model
from torch import nn

from halonet.complaints import RuleError
from halonet.errors import UnknownArgumentError, UserError, unknown_name
from halonet.models.config import HALONETS, DropRate, HaloNetConfig, InChans, NumClasses
from halonet.models.halonet import HaloNet
from halonet.models.pretrained import TIMM_PREFIX, default_cfg, pretrained_cfg, tags_of, trained_cfg
from halonet.rules import check_arguments, check_values

CONFIG_FIELDS = tuple(field.name for field in dataclasses.fields(HaloNetConfig))
MODEL_ARGUMENTS = ("num_classes", "in_chans", "drop_rate", "drop_path_rate", "global_pool")
FEATURE_ARGUMENTS = ("features_only", "out_indices", "feature_cls", "output_stride")
WEIGHTS_OF_THE_USER = ("file", "url", "hf_hub_id", "state_dict")  # in timm's pretrained_cfg_overlay
TIMM_ARGUMENTS = ("pretrained_cfg", "pretrained_cfg_overlay", "pretrained_model_args", "cache_dir")


def create_model(
    name: str,
    num_classes: int | None = None,
    in_chans: int | None = None,
    features_only: bool = False,
    pretrained: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **overrides: Any,
) -> nn.Module:
    """Build a model of the family.

    Args:
        name: A row of `halonet.HALONETS`, e.g. "h0", or a row and the tag of its trained weights, e.g.
            "tiny28.fashion_mnist".
        num_classes: Classes; 0 leaves out the classifier. By default those of the weights, or 1,000 without weights;
            any other number gives a new classifier.
        in_chans: Channels of the images. By default those of the weights, or 3 without weights; the first convolution
            is adapted to any other number as timm does.
        features_only: Return feature maps of all levels (or of `out_indices`) instead of logits, as timm does.
        pretrained: Load the trained weights of the tag; without a tag, the first ones of the row.
        device: Where to build it; "meta" works for networks without weights.
        dtype: Type of its floating-point parameters and buffers.
        **overrides: `drop_rate`, `drop_path_rate`, `global_pool`, `out_indices`, and any field of
            `halonet.HaloNetConfig`, e.g. `block_size=12`; lists, as YAML and JSON give them, serve as tuples.

    Returns:
        A `HaloNet`, or timm's feature extractor around it.

    Raises:
        UserError: If the name or a keyword is unknown (it names the nearest), a value breaks the rules of
            `HaloNetConfig`, the row has no trained weights, or they do not fit the overrides.
    """
    row, _, tag = name.partition(".")
    if row not in HALONETS:
        raise UserError(unknown_name("model", row, HALONETS))
    known = (*CONFIG_FIELDS, *MODEL_ARGUMENTS, *FEATURE_ARGUMENTS, *TIMM_ARGUMENTS)
    for keyword in overrides:
        if keyword not in known:
            raise UnknownArgumentError(unknown_name("model argument", keyword, known))
    given = {
        key: (value, rule)
        for key, value, rule in (("num_classes", num_classes, NumClasses), ("in_chans", in_chans, InChans))
        if value is not None
    }
    check_arguments(
        **given,
        drop_rate=(overrides.get("drop_rate", 0.0), DropRate),
        drop_path_rate=(overrides.get("drop_path_rate", 0.0), DropRate),
    )
    changes = {keyword: overrides.pop(keyword) for keyword in CONFIG_FIELDS if keyword in overrides}
    config = configure(row, **changes)
    if overrides.pop("output_stride", 32) != 32:
        raise UserError("output_stride: only 32 is possible, attention has no dilation")
    if features_only:
        levels = tuple(range(len(config.depths) + 1))
        overrides = {"features_only": True, "out_indices": levels, "feature_cls": "getter"} | overrides
        if overrides.get("global_pool") == "":  # timm drops the head, so that its pooling does not matter
            del overrides["global_pool"]
    has_own_file = any((overrides.get("pretrained_cfg_overlay") or {}).get(key) for key in WEIGHTS_OF_THE_USER)
    cfg = _find_cfg(row, config, overrides.pop("pretrained_cfg", None) or tag, pretrained and not has_own_file)
    try:
        with nullcontext() if device is None else torch.device(device):
            model = build_model_with_cfg(
                HaloNet,
                TIMM_PREFIX + row,
                pretrained,
                pretrained_cfg=cfg,
                config=config,
                **{key: value for key, (value, _) in given.items()},
                **overrides,
            ).to(dtype=dtype)
    except RuntimeError as error:
        if pretrained and "Error(s) in loading state_dict" in str(error):
            weights = f"the trained weights of {name!r}"
            if cfg.get("source") in ("local-dir", "hf-hub"):
                weights = f"the weights in {cfg.get('hf_hub_id') or cfg['file']}"
            what = ", ".join(changes) or repr(row)
            raise UserError(f"{weights} do not fit {what}: {_first_problem(error)}") from error
        raise
    # timm's save_for_hf writes these, besides classes and channels.
    model._model_args = changes  # pyright: ignore[reportArgumentType]
    return model


def _first_problem(error: RuntimeError) -> str:
    """Shorten what PyTorch says of weights that do not fit to one line."""
    problem = textwrap.shorten(str(error).splitlines()[1], 120, placeholder=" ...")
    if problem.startswith("Missing key(s)"):
        problem += "; a network that prune_intermediate_layers made smaller cannot be built again from its files"
    return problem


def _find_cfg(row: str, config: HaloNetConfig, given: str | dict | PretrainedCfg, pretrained: bool) -> dict[str, Any]:
    """Find what timm needs to know: given as such, or by a tag, or for a network without weights."""
    if isinstance(given, PretrainedCfg):
        return given.to_dict()
    if isinstance(given, dict):
        return given
    if not given and pretrained:
        given = next(iter(tags_of(row)), "")
    return trained_cfg(row, given) if given or pretrained else pretrained_cfg(config)


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


def nearest_row(config: HaloNetConfig) -> tuple[str, dict[str, Any]]:
    """Find the row that differs from a configuration in the fewest fields, and the values of these fields."""

    def changes(name: str) -> dict[str, Any]:
        row = HALONETS[name]
        return {
            field: getattr(config, field) for field in CONFIG_FIELDS if getattr(config, field) != getattr(row, field)
        }

    row = min(HALONETS, key=lambda name: len(changes(name)))
    return row, changes(row)


def _register(name: str) -> None:
    """Register one row with timm, which wants a function of that name in the module of `default_cfgs`."""

    def build(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return create_model(name, pretrained=pretrained, **kwargs)

    build.__name__ = build.__qualname__ = TIMM_PREFIX + name
    build.__module__ = __name__
    build.__doc__ = f"Row {name!r} of halonet.HALONETS."
    entry: Callable[..., nn.Module] = register_model(build)
    setattr(sys.modules[__name__], TIMM_PREFIX + name, entry)


default_cfgs = {TIMM_PREFIX + name: default_cfg(name) for name in HALONETS}
for _name in HALONETS:
    _register(_name)
