"""Checkpoints with a wrong description or wrong weights."""

import copy
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

import halonet
from halonet.engine.weights import describe, save_weights
from halonet.training import load_checkpoint
from tests.wrong_inputs.case import NAN, Case, Field, pick, real, shortened, text, whole
from tests.wrong_inputs.fields import AUGMENTATION, CONFIG, RECIPE, put, remove

FIELDS = {
    "num_classes": whole(0, 1_000_000, "from 0 to 1,000,000", right=[2]),
    "in_chans": whole(1, 1_024, "from 1 to 1,024", right=[1]),
    "class_names": Field(
        [["a", "b"], ["a", "a"], None],
        [(["a"], "2 names"), ([], "2 names"), ("ab", "a list"), ([1, 2], "text"), (["a", "\0"], "10,000 letters")],
    ),
    "data": text(right=["fashion-mnist", None], null=True),
    "root": text(right=["here", None], null=True),
    "test_split": text(right=["test", None], null=True),
    "hold_out": real([0, 1, -0.5], "above 0 and below 1", right=[0.2, None], null=True),
    "seed": whole(0, 2**63 - 1, "at least 0 and below 9,223,372,036,854,775,808", null=True),
    **{f"preprocessing.{name}": field for name, field in AUGMENTATION.items()},
    # Recipes may have null here, checkpoints may not.
    "preprocessing": Field(
        [], [(RECIPE["data"]["augmentation"] | {name: None}, "without null") for name in ("image_size", "train_crop")]
    ),
    # Other values mean another network, which the weights do not fit.
    **{f"config.{name}": Field([], field.wrong) for name, field in CONFIG.items()},
}
WEIGHTS = {
    "int64": (lambda tensor: tensor.long(), ("classifier.weight int64 for float32",)),
    "complex": (lambda tensor: tensor.to(torch.complex64), ("classifier.weight complex64 for float32",)),
    "float64": (lambda tensor: tensor.double(), ("classifier.weight float64 for float32",)),
    "NaN": (lambda tensor: torch.full_like(tensor, NAN), ("NaN or infinity", "classifier.weight")),
    "infinite": (lambda tensor: tensor / 0, ("NaN or infinity", "classifier.weight")),
    "cut": (lambda tensor: tensor[:1].clone(), ("of another shape", "classifier.weight [1, ")),
    "half": (lambda tensor: tensor.half(), ()),
}


@cache
def _network() -> tuple[dict[str, Tensor], dict[str, Any]]:
    network = halonet.create_model("h0", num_classes=2, in_chans=1, **RECIPE["model"]["overrides"])
    information = describe(network)
    information |= {"class_names": ["left", "right"], "preprocessing": copy.deepcopy(RECIPE["data"]["augmentation"])}
    return network.state_dict(), information | {"data": "fashion-mnist", "root": None, "test_split": "test"}


def make_checkpoint(random: Random) -> Case:
    """A `model.safetensors` with one mistake, or none."""
    state, information = _network()[0].copy(), copy.deepcopy(_network()[1])
    way = random.choices(("value", "weights", "missing", "unknown"), weights=(12, 3, 1, 1))[0]
    if way == "weights":
        text, (change, expected) = random.choice(list(WEIGHTS.items()))
        state["classifier.weight"] = change(state["classifier.weight"])
    elif way == "missing":
        text = random.choice(["num_classes", "in_chans"])
        remove(information, text)
        expected = (f"{text} is missing",)
    elif way == "unknown":
        text = random.choice(["config.colour", "preprocessing.colour"])
        put(information, text, 1)
        expected = (f"unknown key '{text}'",)
    else:
        fields = FIELDS if random.random() < 0.4 else {key: each for key, each in FIELDS.items() if each.right}
        key, value, expected = pick(random, fields, share_right=0.25 if fields is not FIELDS else 0)
        put(information, key, value)
        text = f"{key}: {shortened(value)}"
    return Case(text, lambda folder: _load(folder, state, information), expected)


def _load(folder: Path, state: dict[str, Tensor], information: dict[str, Any]) -> None:
    save_weights(folder / "model.safetensors", state, information)
    load_checkpoint(folder)
