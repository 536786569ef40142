"""Wrong arguments of configurations and functions."""

from pathlib import Path
from random import Random
from typing import Any

import torch

from halonet import HaloNetConfig, create_model
from halonet.classification.evaluation import evaluate
from halonet.classification.prediction import predict
from halonet.data import AugmentationConfig
from tests.wrong_inputs.case import Case, Field, pick, real, shortened, whole
from tests.wrong_inputs.fields import AUGMENTATION, CONFIG

TWO_STAGES: dict[str, Any] = {"depths": (1, 1), "num_heads": (2, 2), "width_ratio": 0.125}
GRAY: dict[str, Any] = {"in_chans": 1, "mean": (0.4,), "std": (0.2,)}
COUNT = "from 1 to 1,000,000,000"
DROP_RATE = real([-0.1, 1, 2], "at least 0 and below 1", right=[0, 0.5])
MODEL = {
    "num_classes": whole(0, 1_000_000, "from 0 to 1,000,000", right=[0, 3], null=True),
    "in_chans": whole(1, 1_024, "from 1 to 1,024", right=[1, 3], null=True),
    "drop_rate": DROP_RATE,
    "drop_path_rate": DROP_RATE,
    **{name: Field([], field.wrong) for name, field in CONFIG.items()},
}


def make_config(random: Random) -> Case:
    """A configuration with one mistake, or none."""
    cls, base, fields = random.choice([(HaloNetConfig, TWO_STAGES, CONFIG), (AugmentationConfig, GRAY, AUGMENTATION)])
    name, value, expected = pick(random, fields)
    changes = base | {name: value}
    return Case(f"{cls.__name__}({name}={shortened(value)})", lambda folder: cls(**changes), expected)


def make_model(random: Random) -> Case:
    """A call of `create_model` with one mistake, or none."""
    fields = {name: field for name, field in MODEL.items() if field.right or random.random() < 0.5}
    name, value, expected = pick(random, {key: each for key, each in fields.items() if each.right}, 1)
    if random.random() < 0.75:
        name, value, expected = pick(random, fields, share_right=0)
    changes = TWO_STAGES | {name: value}

    def create(folder: Path) -> None:
        with torch.device("meta"):
            create_model("h0", **changes)

    return Case(f"create_model('h0', {name}={shortened(value)})", create, expected)


def make_use(random: Random) -> Case:
    """A call of `evaluate` or `predict` with one wrong number, which fails before the checkpoint is opened."""
    name, value, expected = pick(
        random, {"batch_size": whole(1, 10**9, COUNT), "workers": whole(0, 1_024, "from 0 to 1,024")}, share_right=0
    )
    if name == "batch_size" and random.random() < 0.5:
        return Case(f"predict({name}={value})", lambda folder: predict(folder, [], **{name: value}), expected)
    return Case(f"evaluate({name}={value})", lambda folder: evaluate(folder, **{name: value}), expected)
