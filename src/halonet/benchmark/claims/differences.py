"""Differences of two recipes, in words."""

from typing import Any

from halonet.benchmark.claims.experiment import experiment_of, resolved_recipe
from halonet.classification.recipe import Recipe


def differences(recipe: Recipe, base: Recipe) -> list[str]:
    """List what differs between recipes and their networks' configs, such as "`halo_size` 2 instead of 1"."""
    values, others = _flat_values(recipe), _flat_values(base)
    found = [
        f"`{key.rpartition('.')[2]}` {_show(value)} instead of {_show(others[key])}"
        for key, value in values.items()
        if _show(value) != _show(others[key])
    ]
    return list(dict.fromkeys(found))  # the image size is a value of the data and of the network


def _flat_values(recipe: Recipe) -> dict[str, Any]:
    """What is part of the experiment, by dotted key."""
    values: dict[str, Any] = {}

    def add(key: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, each in value.items():
                add(f"{key}.{name}" if key else name, each)
        else:
            values[key] = value

    add("", experiment_of(resolved_recipe(recipe)))
    return values


def _show(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_show, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
