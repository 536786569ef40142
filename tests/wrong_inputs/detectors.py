"""Checkpoints of detectors with a wrong description or wrong weights."""

import copy
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from halonet.data.detection.dataset import DetectionAugmentation
from halonet.detection import create_detector
from halonet.detection.checkpoint import load_detector
from halonet.engine.weights import describe, save_weights
from tests.wrong_inputs.case import NAN, Case, Field, choice, flag, pick, real, shortened, text, whole
from tests.wrong_inputs.fields import CONFIG, PROBABILITY, RECIPE, put, remove

AUGMENTATION: dict[str, Any] = {"min_size": 48, "max_size": 96, "train_min_sizes": [48]}
NULLABLE = ("min_size", "max_size", "jitter_size")
SIDE = "from 1 to 16,384"
# By the name of a field of `DetectionAugmentation`, with values that fit images in color of 48 to 96 pixels.
DETECTION_AUGMENTATION = {
    "in_chans": Field([3], [(value, "1 (gray) or 3 (color)") for value in (0, 2, 4)] + [("3", "a whole number")]),
    "mean": Field(
        [[0, 0.5, 1]],
        [
            ([0.5], "one a channel"),
            ([], "one a channel"),
            ([0.5, 0.5, 127.5], "from 0 to 1"),
            ([0.5, 0.5, NAN], "a finite number"),
            (0.5, "a list"),
            (None, "a list"),
        ],
    ),
    "std": Field(
        [[1, 0.2, 0.001]],
        [([1], "one a channel"), ([0.2, 0.2, 0], "from 0.001 to 10"), ([0.2, 0.2, 57], "from 0.001 to 10")],
    ),
    "min_size": Field([1, 96], [*whole(1, 16_384, SIDE, null=True).wrong, (97, "at most max_size, which is 96")]),
    "max_size": whole(1, 16_384, SIDE, right=[96, 16_384], null=True),
    "train_resize": choice("shortest", "jitter"),
    "train_min_sizes": Field(
        [[48], [40, 96]],
        [
            ([], "one or more sizes"),
            ([48, 97], "at most max_size, which is 96"),
            ([0], SIDE),
            (48, "a list"),
            ([48.5], "a whole number"),
        ],
    ),
    "jitter_size": whole(1, 16_384, SIDE, null=True),
    "jitter_scale": Field(
        [[0.01, 100], [1, 1]],
        [
            ([2, 1], "the smaller one first"),
            ([0, 1], "from 0.01 to 100"),
            ([1, 101], "from 0.01 to 100"),
            ([1], "longer"),
        ],
    ),
    "hflip": PROBABILITY,
    "vflip": PROBABILITY,
    "photometric": flag(),
}

WIDTH, SAMPLES = "from 1 to 65,536", "from 1 to 100,000"
# By the name of a field of `DetectorConfig`; other widths mean another network, which the weights do not fit.
DETECTOR = {
    "batch_norm": Field(["batch", "synchronized"], choice("batch", "synchronized", "frozen").wrong),
    "frozen_stages": Field([0, 2], [*whole(0, 8, "from 0 to 8").wrong, (3, "at most 2, the stages")]),
    "pyramid_channels": whole(1, 65_536, WIDTH, right=[8]),
    "box_channels": whole(1, 65_536, WIDTH, right=[16]),
    "mask_channels": whole(1, 65_536, WIDTH, right=[8]),
    "anchor_scale": real([0, 0.01, -8, 1_001], "from 0.1 to 1,000", right=[0.1, 8, 1_000]),
    "anchors_per_image": whole(1, 100_000, SAMPLES),
    "boxes_per_image": whole(1, 100_000, SAMPLES),
    "score_threshold": real([-0.1, 1, 2], "at least 0 and below 1", right=[0, 0.99]),
    "detections_per_image": whole(1, 100_000, SAMPLES),
}

FIELDS = {
    "num_classes": whole(1, 1_000_000, "from 1 to 1,000,000", right=[2]),
    "in_chans": whole(1, 1_024, "from 1 to 1,024", right=[3]),
    "class_names": Field(
        [["a", "b"], ["a", "a"]],
        [
            (["a"], "2 names"),
            ([], "2 names"),
            ("ab", "a list"),
            (None, "a list"),
            ([1, 2], "text"),
            (["a", "\0"], "10,000 letters"),
        ],
    ),
    "category_ids": Field(
        [[1, 2], [0, -5], [-(2**53), 2**53]],
        [
            ([1], "2 different numbers"),
            ([1, 1], "2 different numbers"),
            ([1, 2**53 + 1], "from -9,007,199,254,740,992 to 9,007,199,254,740,992"),
            ([1, 2.5], "a whole number"),
            (["1", "2"], "a whole number"),
            (12, "a list"),
        ],
    ),
    "data": text(right=["nuclei", None], null=True),
    "hold_out": real([0, 1, -0.5], "above 0 and below 1", right=[0.2, None], null=True),
    "test_split": text(right=["test", None], null=True),
    **{f"preprocessing.{name}": field for name, field in DETECTION_AUGMENTATION.items()},
    **{f"config.{name}": field for name, field in DETECTOR.items()},
    # Recipes may have null here, checkpoints may not.
    "preprocessing": Field([], [(AUGMENTATION | {name: None}, "without null") for name in NULLABLE]),
    # Other values mean another network, which the weights do not fit.
    **{f"config.backbone.{name}": Field([], field.wrong) for name, field in CONFIG.items()},
}
SCORES = "roi_heads.box_predictor.cls_score.weight"
WEIGHTS = {
    "int64": (lambda tensor: tensor.long(), (f"{SCORES} int64 for float32",)),
    "NaN": (lambda tensor: torch.full_like(tensor, NAN), ("NaN or infinity", SCORES)),
    "cut": (lambda tensor: tensor[:1].clone(), ("of another shape", f"{SCORES} [1, 16] for [3, 16]")),
    "half": (lambda tensor: tensor.half(), ()),
}
NETWORKS = [None, 3, "", "HaloNet", "maskrcnn", "x" * 5000, ["MaskRCNN"]]


@cache
def small_detector() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A detector's weights and description."""
    overrides = RECIPE["model"]["overrides"] | {"stem": "conv3x3_stride2"}
    widths = {"pyramid_channels": 8, "box_channels": 16, "mask_channels": 8}
    detector = create_detector(
        "tiny28", 2, DetectionAugmentation(**AUGMENTATION), backbone_overrides=overrides, **widths
    )
    information = describe(detector) | {"class_names": ["ant", "zebra"], "category_ids": [7, 90]}
    information |= {"preprocessing": AUGMENTATION, "data": "nuclei", "test_split": "test"}
    return detector.state_dict(), information


def make_detector(random: Random) -> Case:
    """A detector's `model.safetensors` with one mistake, or none."""
    state, information = copy.deepcopy(small_detector())
    way = random.choices(("value", "weights", "missing", "unknown", "network"), weights=(12, 2, 1, 1, 1))[0]
    if way == "weights":
        text, (change, expected) = random.choice(list(WEIGHTS.items()))
        state[SCORES] = change(state[SCORES])
    elif way == "missing":
        text = random.choice(["num_classes", "in_chans", "class_names", "category_ids", "config.backbone"])
        remove(information, text)
        expected = (f"{text} is missing",)
    elif way == "unknown":
        text = random.choice(["config.color", "config.backbone.color", "preprocessing.color"])
        put(information, text, 1)
        expected = (f"unknown key '{text}'",)
    elif way == "network":
        information["network"] = random.choice(NETWORKS)
        text, expected = f"network: {shortened(information['network'])}", ("holds no detector", "--init")
    else:
        is_valid = random.random() < 0.2
        fields = {key: each for key, each in FIELDS.items() if each.right} if is_valid else FIELDS
        key, value, expected = pick(random, fields, share_right=is_valid)
        put(information, key, value)
        text = f"{key}: {shortened(value)}"
    return Case(text, lambda folder: _load(folder, state, information), expected)


def _load(folder: Path, state: dict[str, Tensor], information: dict[str, Any]) -> None:
    save_weights(folder / "model.safetensors", state, information)
    load_detector(folder)
