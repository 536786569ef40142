"""The `config.json` of a Hub folder, as timm writes it, in the terms of our checkpoints."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from halonet.complaints import RuleError, shown
from halonet.data import AugmentationConfig
from halonet.engine.files import read_json
from halonet.errors import UserError, unknown_name
from halonet.models.config import HALONETS, InChans, NumClasses
from halonet.models.pretrained import TIMM_PREFIX
from halonet.models.registry import CONFIG_FIELDS, MODEL_ARGUMENTS, configure
from halonet.rules import Text, check_arguments

CONFIG = "config.json"
PREPARED = ("mean", "std", "interpolation", "crop_pct")


def read_hub_config(path: Path) -> dict[str, Any]:
    """Describe the weights beside a `config.json`, as `halonet.engine.weights.describe` does.

    Raises:
        UserError: The file is not a `config.json` of timm, or of another network than a row of `halonet.HALONETS`.
    """
    values = read_json(path)
    architecture = values.get("architecture")
    if not isinstance(architecture, str):
        raise UserError(f"{path} is not a config.json of timm: it has no architecture")
    row = architecture.removeprefix(TIMM_PREFIX)
    if row not in HALONETS or row == architecture:
        known = [TIMM_PREFIX + name for name in HALONETS]
        raise UserError(f"{path}: {unknown_name('architecture', architecture, known)}")
    arguments, prepared = (_section(values, name, path) for name in ("model_args", "pretrained_cfg"))
    for name in arguments:
        if name not in (*CONFIG_FIELDS, *MODEL_ARGUMENTS):
            raise UserError(f"{path}: {unknown_name('model argument', name, (*CONFIG_FIELDS, *MODEL_ARGUMENTS))}")
    num_classes = arguments.get("num_classes", values.get("num_classes", prepared.get("num_classes")))
    size = prepared.get("input_size")
    in_chans = arguments.get("in_chans", size[0] if isinstance(size, list) and size else 3)
    names = _names(values, prepared)
    with _naming(path):
        check_arguments(
            num_classes=(num_classes, NumClasses),
            in_chans=(in_chans, InChans),
            label_names=(names, tuple[Text, ...] | None),
        )
    if num_classes and arguments.get("global_pool", "avg") != "avg":
        raise UserError(f"{path}: global_pool is {shown(arguments['global_pool'])}, but must be 'avg' for a classifier")
    if names is not None and len(names) != num_classes:
        raise UserError(
            f"{path} names {len(names):,} classes, but its num_classes is {num_classes:,}: correct its label_names. "
            "transformers writes the old ones unless model.config.label_names is set before save_pretrained"
        )
    with _naming(path, "model_args"):
        config = configure(row, **{name: value for name, value in arguments.items() if name in CONFIG_FIELDS})
    with _naming(path, "pretrained_cfg"):
        preprocessing = _preprocessing(prepared)
    information = {
        "network": "HaloNet",
        "config": dataclasses.asdict(config),
        "num_classes": num_classes,
        "in_chans": in_chans,
        "class_names": names,
        "preprocessing": preprocessing,
    }
    return json.loads(json.dumps(information))


def _section(values: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    section = values.get(name)
    if section is not None and not isinstance(section, dict):
        raise UserError(f"{path} is not a config.json of timm: its {name} is {shown(section)}")
    return section or {}


@contextmanager
def _naming(path: Path, section: str = "") -> Iterator[None]:
    """Name the file, and the section of it, in complaints."""
    try:
        yield
    except RuleError as error:
        raise RuleError.of(str(path), [each.under(section) for each in error.complaints]) from error


def _names(values: dict[str, Any], prepared: dict[str, Any]) -> Any:
    """Find the names of the classes; where they stand by their numbers, list them in order."""
    for names in (values.get("label_names"), values.get("id2label"), prepared.get("label_names")):
        if isinstance(names, dict) and set(names) == {str(number) for number in range(len(names))}:
            return [names[str(number)] for number in range(len(names))]
        if names is not None:
            return names
    return None


def _preprocessing(prepared: dict[str, Any]) -> dict[str, Any] | None:
    """How images are prepared, or None if our transforms cannot do it."""
    size = prepared.get("input_size")
    if not isinstance(size, list) or len(size) != 3 or size[1] != size[2] or size[0] not in (1, 3):
        return None
    if prepared.get("crop_mode", "center") != "center":
        return None
    known = {name: prepared[name] for name in PREPARED if name in prepared}
    known |= {"image_size": size[1], "in_chans": size[0], "train_crop": "none"}
    AugmentationConfig(**known)  # checks them
    return known
