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
from typing import Annotated, Any, Literal

from halonet.benchmark.claims.experiment import hash_recipe
from halonet.complaints import Complaint, missing, must_be, shown
from halonet.rules import Count, Rule, check_value, within

BENCHMARK = "claims"
COMPLETE, DIVERGED = "complete", "diverged"
PIXELS = [1, 2, 3, 4, 5, 6, 7, 8]


class DamageError(Exception):
    """A record breaks rules; the message names all of them."""


def check_record(record: Any) -> None:
    """Check the keys of a record, the type and the range of each value, and that they agree; raise a `DamageError`."""
    _refuse(_complaints(record, _SCHEMA, ""))
    is_complete = record["status"] == COMPLETE
    _refuse(_complaints(record, _COMPLETE if is_complete else _DIVERGED, ""))
    if hash_recipe(record["recipe"]) != record["recipe_hash"]:
        raise DamageError(
            f"recipe_hash is {record['recipe_hash']}, but that of its recipe is {hash_recipe(record['recipe'])}"
        )
    epochs, planned = [epoch["epoch"] for epoch in record["epochs"]], record["recipe"]["schedule"]["epochs"]
    if epochs != list(range(len(epochs))) or len(epochs) > planned or (is_complete and len(epochs) < planned):
        raise DamageError(f"epochs are {shown(epochs)}, but its recipe has {planned}, counted from 0")
    # A package that runs outside a checkout has neither a commit nor changes.
    if type(modified := record["provenance"].get("modified", False)) is not bool:
        raise DamageError(f"provenance.modified is {shown(modified)}, but must be true or false")
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


def _refuse(complaints: list[Complaint]) -> None:
    if complaints:
        raise DamageError("; ".join(map(str, complaints)))


def _complaints(value: Any, schema: Any, key: str) -> list[Complaint]:
    """A dictionary stands for one with at least these keys, a list for a list of such items, all else annotates."""
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return [must_be(key, value, "a section with keys of its own")]
        found = []
        for name, each in schema.items():
            inner = f"{key}.{name}" if key else name
            found += _complaints(value[name], each, inner) if name in value else [missing(inner)]
        return found
    if isinstance(schema, list):
        if not isinstance(value, list):
            return [must_be(key, value, "a list")]
        return [each for index, item in enumerate(value) for each in _complaints(item, schema[0], f"{key}.{index}")]
    return check_value(schema, value, key)[1]


def _is_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())


_Texts = Annotated[Any, Rule("a dictionary of texts", _is_texts)]
_Percent = Annotated[float, within(least=0, most=100)]
_Positive = Annotated[float, within(least=0)]
_Index = Annotated[int, within(least=0)]
_Digits = Annotated[str, Rule("digits", lambda value: re.fullmatch(r"[0-9]*", value) is not None)]
_Hash = Annotated[str, Rule("16 hexadecimal digits", lambda value: re.fullmatch("[0-9a-f]{16}", value) is not None)]
_Percents = tuple[(_Percent,) * len(PIXELS)]

_SCHEMA: dict[str, Any] = {
    "benchmark": Literal["claims"],
    "row": str,
    "seed": _Index,
    "status": Literal["complete", "diverged"],
    "recipe": {"data": {}, "engine": {}, "schedule": {"epochs": Count}},
    "recipe_hash": _Hash,
    "epochs": [
        {
            "epoch": _Index,
            "train_loss": _Positive,
            "train_top1": _Percent,
            "validation_loss": _Positive,
            "validation_top1": _Percent,
        }
    ],
    "parameters": Count,
    "macs": Annotated[int, within(least=1)],
    "data": {
        "variant": str,
        "checksums": _Texts,
        "images": {"train": Count, "validation": Count, "test": Count},
    },
    "seconds": {"process": _Positive, "wall": _Positive},
    "machine": _Texts,
    "provenance": {
        "command": str,
        "time": str,
        "commit": str | None,
        "python": str,
        "halonet": str,
        "torch": str,
        "timm": str,
    },
}
_COMPLETE: dict[str, Any] = {
    "reason": None,
    "test": {"top1": _Percent, "top5": _Percent, "loss": _Positive, "images": Count},
    "predictions": _Digits,
    "shifts": {
        "direction": str,
        "fill": str,
        "images": Count,
        "pixels": Annotated[Any, Rule("1 to 8", lambda value: repr(value) == repr(PIXELS))],
        "top1": _Percents,
        "changed": _Percents,
        "unshifted_top1": _Percent,
    },
}
_DIVERGED: dict[str, Any] = {"reason": str, "test": None, "predictions": None, "shifts": None}
