"""The `config.json` of a Hub folder, as timm writes it, in the terms of our checkpoints."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from halonet.complaints import shown
from halonet.errors import UserError, unknown_name
from halonet.models.config import HALONETS
from halonet.models.pretrained import TIMM_PREFIX
from halonet.models.registry import CONFIG_FIELDS, configure

CONFIG = "config.json"
MOST_BYTES = 4 * 2**20  # ImageNet-21k's names take 1 MiB
PREPARED = ("mean", "std", "interpolation", "crop_pct")


def read_hub_config(path: Path) -> dict[str, Any]:
    """Describe the weights beside a `config.json`, as `halonet.engine.weights.describe` does.

    Raises:
        UserError: The file is not a `config.json` of timm, or of another network than a row of `halonet.HALONETS`.
    """
    values = _read_json(path)
    architecture, arguments = values.get("architecture"), values.get("model_args", {})
    if not isinstance(architecture, str) or not isinstance(arguments, dict):
        raise UserError(f"{path} is not a config.json of timm: it has no architecture")
    row = architecture.removeprefix(TIMM_PREFIX)
    if row not in HALONETS or row == architecture:
        known = [TIMM_PREFIX + name for name in HALONETS]
        raise UserError(f"{path}: {unknown_name('architecture', architecture, known)}")
    if arguments.get("global_pool", "avg") != "avg":
        raise UserError(f"{path}: global_pool is {shown(arguments['global_pool'])}, but must be 'avg' for a classifier")
    config = configure(row, **{name: value for name, value in arguments.items() if name in CONFIG_FIELDS})
    prepared = values.get("pretrained_cfg", {})
    if not isinstance(prepared, dict):
        raise UserError(f"{path} is not a config.json of timm: its pretrained_cfg is {shown(prepared)}")
    information = {
        "network": "HaloNet",
        "config": dataclasses.asdict(config),
        "num_classes": arguments.get("num_classes", values.get("num_classes", prepared.get("num_classes"))),
        "in_chans": arguments.get("in_chans", 3),
        "class_names": values.get("label_names", prepared.get("label_names")),
        "preprocessing": _preprocessing(prepared),
    }
    return json.loads(json.dumps(information))


def _read_json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MOST_BYTES:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes, but must have at most {MOST_BYTES:,}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a JSON file: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds {shown(values)}, but must hold the configuration of a network")
    return values


def _preprocessing(prepared: dict[str, Any]) -> dict[str, Any] | None:
    """How images are prepared, or None if our transforms cannot do it."""
    size = prepared.get("input_size")
    if not isinstance(size, list) or len(size) != 3 or size[1] != size[2] or size[0] not in (1, 3):
        return None
    if prepared.get("crop_mode", "center") != "center":
        return None
    known = {name: prepared[name] for name in PREPARED if name in prepared}
    return known | {"image_size": size[1], "in_chans": size[0], "train_crop": "none"}
