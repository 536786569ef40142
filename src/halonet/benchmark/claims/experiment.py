"""Which fields of a recipe define the experiment, and a hash of them that new fields do not change."""

import copy
import dataclasses
import hashlib
import json
import typing
from typing import Any

from halonet.classification.recipe import Recipe
from halonet.models.config import HaloNetConfig
from halonet.models.registry import configure

# Fields that describe a recipe, or how its run proceeds, but do not change the result. The seed is in the record's
# name, and the whole network in `model.config`.
IGNORED_FIELDS = (
    "name",
    "description",
    "reproduces",
    "provenance",
    "model.name",
    "model.overrides",
    "data.root",
    "data.workers",
    "engine.seed",
    "engine.checkpoint_every_steps",
    "engine.log_every_steps",
)


def resolved_recipe(recipe: Recipe) -> dict[str, Any]:
    """Write a recipe as JSON values, with the network's whole config as `model.config` and without the data's path."""
    values = dataclasses.asdict(recipe)
    values["model"]["config"] = dataclasses.asdict(configure(recipe.model.name, **recipe.model.overrides))
    values["data"]["root"] = None
    return json.loads(json.dumps(values))


def experiment_hash(recipe: Recipe) -> str:
    """Hash a recipe without `IGNORED_FIELDS` to 16 hexadecimal digits.

    A field that is added to recipes or networks later does not change the hash while it has its default.
    """
    return hash_recipe(resolved_recipe(recipe))


def hash_recipe(values: dict[str, Any]) -> str:
    """Hash what `resolved_recipe` returned."""
    part = _without_defaults(experiment_of(values), Recipe)
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:16]


def experiment_of(values: dict[str, Any]) -> dict[str, Any]:
    """Drop `IGNORED_FIELDS` from what `resolved_recipe` returned."""
    part = copy.deepcopy(values)
    for key in IGNORED_FIELDS:
        *sections, name = key.split(".")
        section = part
        for each in sections:
            section = section.get(each, {})
        section.pop(name, None)
    return part


def _without_defaults(values: dict[str, Any], section: type) -> dict[str, Any]:
    hints = typing.get_type_hints(section) | {"config": HaloNetConfig}
    defaults = {field.name: field.default for field in dataclasses.fields(section)}
    kept = {}
    for name, value in values.items():
        if isinstance(value, dict) and dataclasses.is_dataclass(hints.get(name)):
            if inner := _without_defaults(value, hints[name]):
                kept[name] = inner
        elif name not in defaults or value != _as_json(defaults[name]):
            kept[name] = value
    return kept


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
