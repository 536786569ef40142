"""What a record of a run must hold.

A record is a dictionary:

    benchmark, row, seed     "claims"; the row's name; the run's seed
    status, reason           "complete" and None, or "diverged" and why
    recipe, recipe_hash      as `resolved_recipe` writes it; its `experiment_hash`
    epochs                   of each: epoch (from 0), train_loss, train_top1, validation_loss, validation_top1
    test                     top1, top5, loss, images
    predictions              one digit for each test image
    shifts                   direction, fill, images, pixels (1 to 8); for each of these top1 and changed (share of
                             predictions that differ from those without a shift); unshifted_top1
    parameters, macs         of the network
    data                     variant, checksums and images of the splits
    seconds                  process, wall
    machine, provenance      as `halonet.benchmark.record` describes them

Accuracies and shares are in percent. Where a run diverged, test, predictions and shifts are None.
"""

import re
import reprlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from halonet.benchmark.claims.experiment import hash_recipe

BENCHMARK = "claims"
COMPLETE, DIVERGED = "complete", "diverged"
PIXELS = [1, 2, 3, 4, 5, 6, 7, 8]


class DamageError(Exception):
    """A record breaks a rule; the message names it."""


def check_record(record: Any) -> None:
    """Check the keys of a record, the type and the range of each value, and that they agree with one another.

    Raises:
        DamageError: It names the first key that breaks a rule.
    """
    _check_value(record, _SCHEMA, "it")
    is_complete = record["status"] == COMPLETE
    _check_value(record, _COMPLETE if is_complete else _DIVERGED, "it")
    if hash_recipe(record["recipe"]) != record["recipe_hash"]:
        raise DamageError(
            f"recipe_hash is {record['recipe_hash']}, but that of its recipe is {hash_recipe(record['recipe'])}"
        )
    epochs, planned = [epoch["epoch"] for epoch in record["epochs"]], record["recipe"]["schedule"]["epochs"]
    if epochs != list(range(len(epochs))) or len(epochs) > planned or (is_complete and len(epochs) < planned):
        raise DamageError(f"epochs are {reprlib.repr(epochs)}, but its recipe has {planned}, counted from 0")
    # A package that runs outside a checkout has neither a commit nor changes.
    if type(modified := record["provenance"].get("modified", False)) is not bool:
        raise DamageError(f"provenance.modified is {reprlib.repr(modified)}, but must be true or false")
    if is_complete:
        _check_images(record)


def _check_images(record: dict[str, Any]) -> None:
    images = record["test"]["images"]
    if len(record["predictions"]) != images:
        raise DamageError(f"predictions are {len(record['predictions'])}, but test images are {images}")
    if record["data"]["images"]["test"] != images:
        raise DamageError(f"data.images.test is {record['data']['images']['test']}, but test.images is {images}")
    if record["shifts"]["images"] > images:
        raise DamageError(f"shifts.images is {record['shifts']['images']}, but test images are {images}")


@dataclass(frozen=True)
class _Rule:
    """What a value must be, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


def _check_value(value: Any, rule: Any, key: str) -> None:
    """A dictionary stands for one with at least these keys, a list for a list of such items."""
    if isinstance(rule, dict):
        if not isinstance(value, dict):
            raise DamageError(f"{key} is {reprlib.repr(value)}, but must have keys")
        for name, each in rule.items():
            inner = name if key == "it" else f"{key}.{name}"
            if name not in value:
                raise DamageError(f"{inner} is missing")
            _check_value(value[name], each, inner)
    elif isinstance(rule, list):
        if not isinstance(value, list):
            raise DamageError(f"{key} is {reprlib.repr(value)}, but must be a list")
        for index, item in enumerate(value):
            _check_value(item, rule[0], f"{key}.{index}")
    elif not rule.holds(value):
        raise DamageError(f"{key} is {reprlib.repr(value)}, but must be {rule.words}")


def _is_number(value: Any) -> bool:
    """Neither a bool nor NaN, and not so large that it is no float."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _only(*values: Any) -> _Rule:
    return _Rule(" or ".join(map(repr, values)), lambda value: any(value == each for each in values))


def _is_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())


_TEXT = _Rule("text", lambda value: isinstance(value, str))
_TEXTS = _Rule("a dictionary of texts", _is_texts)
_PERCENT = _Rule("a number from 0 to 100", lambda value: _is_number(value) and 0 <= value <= 100)
_POSITIVE = _Rule("a finite number, at least 0", lambda value: _is_number(value) and value >= 0)
_INDEX = _Rule("a whole number, at least 0", lambda value: type(value) is int and value >= 0)
_COUNT = _Rule("a whole number above 0", lambda value: type(value) is int and value > 0)
_DIGITS = _Rule("digits", lambda value: isinstance(value, str) and re.fullmatch(r"[0-9]*", value) is not None)
_HASH = _Rule(
    "16 hexadecimal digits", lambda value: isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{16}", value))
)
_PERCENTS = _Rule(
    f"{len(PIXELS)} numbers from 0 to 100",
    lambda value: isinstance(value, list) and len(value) == len(PIXELS) and all(map(_PERCENT.holds, value)),
)

_SCHEMA: dict[str, Any] = {
    "benchmark": _only(BENCHMARK),
    "row": _TEXT,
    "seed": _INDEX,
    "status": _only(COMPLETE, DIVERGED),
    "recipe": {"data": {}, "engine": {}, "schedule": {"epochs": _COUNT}},
    "recipe_hash": _HASH,
    "epochs": [
        {
            "epoch": _INDEX,
            "train_loss": _POSITIVE,
            "train_top1": _PERCENT,
            "validation_loss": _POSITIVE,
            "validation_top1": _PERCENT,
        }
    ],
    "parameters": _COUNT,
    "macs": _COUNT,
    "data": {
        "variant": _TEXT,
        "checksums": _TEXTS,
        "images": {"train": _COUNT, "validation": _COUNT, "test": _COUNT},
    },
    "seconds": {"process": _POSITIVE, "wall": _POSITIVE},
    "machine": _TEXTS,
    "provenance": {
        "command": _TEXT,
        "time": _TEXT,
        "commit": _Rule("text or null", lambda value: value is None or isinstance(value, str)),
        "python": _TEXT,
        "halonet": _TEXT,
        "torch": _TEXT,
        "timm": _TEXT,
    },
}
_COMPLETE: dict[str, Any] = {
    "reason": _only(None),
    "test": {"top1": _PERCENT, "top5": _PERCENT, "loss": _POSITIVE, "images": _COUNT},
    "predictions": _DIGITS,
    "shifts": {
        "direction": _TEXT,
        "fill": _TEXT,
        "images": _COUNT,
        "pixels": _Rule("1 to 8", lambda value: repr(value) == repr(PIXELS)),
        "top1": _PERCENTS,
        "changed": _PERCENTS,
        "unshifted_top1": _PERCENT,
    },
}
_DIVERGED: dict[str, Any] = {"reason": _TEXT, "test": _only(None), "predictions": _only(None), "shifts": _only(None)}
