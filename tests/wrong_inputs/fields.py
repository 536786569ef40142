"""Valid and wrong values of the fields of recipes and checkpoints, by dotted key."""

from tests.wrong_inputs.case import NAN, Field, choice, flag, real, text, whole

BILLION = 10**9
PROBABILITY = real([-0.1, 1.1, 100], "from 0 to 1", right=[0, 1, 0.5])
PART = real([-0.1, 1, 1.5], "at least 0 and below 1", right=[0, 0.5, 0.99])
FRACTION = real([0, -1, 1.1], "above 0 and at most 1", right=[1, 0.5, 1e-6])
RATIO = real([0, 0.001, -1, 101], "from 0.01 to 100", right=[1, 1.0, 2])
COUNT = whole(1, BILLION, "from 1 to 1,000,000,000")

# By the name of a field of `HaloNetConfig`, with values that fit two stages of two heads.
CONFIG = {
    "block_size": whole(1, 1_024, "from 1 to 1,024"),
    "halo_size": whole(0, 1_024, "from 0 to 1,024"),
    "value_ratio": RATIO,
    "bottleneck_ratio": RATIO,
    "query_key_ratio": RATIO,
    "depths": Field(
        [[1, 2], [512 - 1, 1]],
        [
            ([], "1 to 8 stages"),
            ([1] * 9, "1 to 8 stages"),
            ([0, 1], "from 1 to 512"),
            ([10**7, 1], "from 1 to 512"),
            ([512, 512], "at most 512 blocks in all"),
            (1.5, "a list"),
            ("12", "a list"),
            ({"a": 1}, "a list"),
            ([1, 1.5], "a whole number"),
            ([True, 1], "a whole number"),
        ],
    ),
    "num_heads": Field(
        [[1, 1], [2, 4]],
        [([1], "as many numbers as depths"), ([1, 0], "from 1 to 1,024"), (2, "a list")],
    ),
    "image_size": whole(1, 16_384, "from 1 to 16,384"),
    "final_width": whole(1, 65_536, "from 1 to 65,536", right=[1, 64, None], null=True),
    "width_ratio": real([0, -1, 101, 0.001], "from 0.01 to 100", right=[0.125, 1, 0.5]),
    "stem": choice("conv7x7", "patch4x4", "conv3x3", "conv3x3_stride2", "patch2x2"),
    "stem_width": whole(1, 65_536, "from 1 to 65,536"),
    "convolution_stages": Field(
        [[], [1], [1, 2]], [([0], "from 1 to 8"), ([3], "which count from 1 to 2"), (1, "a list"), (["1"], "a whole")]
    ),
    "squeeze_excitation_stages": Field([[], [2]], [([-1], "from 1 to 8"), ([8], "count from 1 to 2"), ("1", "a list")]),
    "squeeze_excitation_ratio": real([0, -1, 1.5], "from 0.001 to 1", right=[1, 0.25]),
    "activation": choice("silu", "relu"),
    "centered": flag(),
    "downsampling": choice("attention", "pool"),
    "position": choice("relative", "absolute", "none"),
    "embedding": choice("split", "full"),
    "border": choice("mask", "zeros"),
}

# By the name of a field of `AugmentationConfig`, with values that fit gray images.
AUGMENTATION = {
    "image_size": whole(1, 16_384, "from 1 to 16,384", null=True),
    "in_chans": Field([1], [(value, "1 (gray) or 3 (color)") for value in (0, 2, 4)] + [(True, "a whole number")]),
    "mean": Field(
        [[0], [1], [0.5]],
        [
            ([], "one a channel"),
            ([0.1] * 3, "one a channel"),
            ([127.5], "from 0 to 1"),
            ([NAN], "a finite number"),
            (["x"], "a finite number"),
            (0.5, "a list"),
        ],
    ),
    "std": Field([[1], [0.2]], [([0], "from 0.001 to 10"), ([57], "from 0.001 to 10"), ([1, 1], "one a channel")]),
    "interpolation": choice("nearest", "bilinear", "bicubic", "lanczos"),
    "crop_pct": real([0, 1e-9, 1.1, -1], "from 0.1 to 1", right=[0.1, 1, 0.875]),
    "train_crop": choice("random_resized", "pad", "none", null=True),
    "padding": whole(0, 16_384, "from 0 to 16,384"),
    "scale": Field(
        [[0.5, 1], [1, 1]],
        [
            ([0, 1], "above 0 and at most 1"),
            ([0.5, 2], "at most 1"),
            ([0.9, 0.5], "smaller one first"),
            (0.5, "a list"),
        ],
    ),
    "ratio": Field([[1, 1], [0.5, 2]], [([2, 1], "smaller one first"), ([0, 1], "from 0.01 to 100"), ([1], "longer")]),
    "hflip": PROBABILITY,
    "color_jitter": real([-1, 11], "from 0 to 10", right=[0, 10, 0.4]),
    "randaugment_magnitude": whole(0, 100, "from 0 to 100"),
    "randaugment_num_ops": whole(1, 100, "from 1 to 100"),
    "randaugment_probability": PROBABILITY,
    "random_erasing": PROBABILITY,
}

NAME_RULE = "a path below runs/"
# By dotted key of a recipe of classification, with values that fit `RECIPE`.
FIELDS = {
    "name": Field(
        ["a", "a/b", "größer (2)"],
        [(name, NAME_RULE) for name in ("../../../x", "/x", "a/", "a//b", "..", "a\0", "x" * 5000, "a\nb", "\ud800")]
        + [(3, "text"), (None, "text"), (["a"], "text")],
        is_text=True,
    ),
    "description": text(right=["", "a"], empty=True),
    "reproduces": text(right=["", "a"], empty=True),
    "provenance.result": text(right=["", "a"], empty=True),
    "model.name": Field(["h0", "h1"], [("h9", "unknown model 'h9'"), ("", "unknown model"), (3, "text")], is_text=True),
    "model.num_classes": whole(1, 1_000_000, "from 1 to 1,000,000", right=[1, 2, None], null=True),
    "model.in_chans": Field(
        [1], [(3, "data.augmentation.in_chans, which is 1"), (0, "from 1 to 1,024"), ("1", "whole")]
    ),
    "model.drop_rate": PART,
    "model.drop_path_rate": PART,
    "data.source": text(right=["somewhere", "hfds/x", None], null=True),
    "data.root": text(right=[None, "here"], null=True),
    "data.train_images": whole(1, BILLION, "from 1 to 1,000,000,000", right=[1, None], null=True),
    "data.validation_split": text(right=[None, "validation"], null=True),
    "data.test_split": text(right=["test", None], null=True),
    "data.hold_out": real([0, 1, -0.5], "above 0 and below 1", right=[0.2, None], null=True),
    "data.shrink": real([0, 0.99, 1_001], "from 1 to 1,000", right=[1, 1_000, None], null=True),
    "data.workers": whole(0, 1_024, "from 0 to 1,024"),
    "optimizer.learning_rate": real([0, -1], "above 0", right=[1, 1e-9, 100, None], null=True),
    "optimizer.momentum": PART,
    "optimizer.weight_decay": real([-1, 1e9], "from 0 to 1,000", right=[0, 1]),
    "optimizer.decay": choice("matrices", "all"),
    "optimizer.batch_size": whole(1, BILLION, "from 1 to 1,000,000,000", right=[4, 8, None], null=True),
    "optimizer.accumulate": whole(1, BILLION, "from 1 to 1,000,000,000", right=[1, 2, 4]),
    "schedule.epochs": whole(1, BILLION, "from 1 to 1,000,000,000", right=[2, BILLION, None], null=True),
    "schedule.warmup_epochs": real([-1], "at least 0", right=[0, 1.5, 2, None], null=True),
    "schedule.final_fraction": FRACTION,
    "regularization.label_smoothing": PART,
    "ema.decay": PART,
    "engine.precision": choice("fp32", "bf16-mixed", "16-mixed"),
    "engine.accelerator": text(right=["cpu"]),
    "engine.devices": whole(1, 1_024, "from 1 to 1,024", right=[1, 2]),
    "engine.nodes": whole(1, 65_536, "from 1 to 65,536", right=[1, 4]),
    "engine.strategy": text(right=["ddp"]),
    "engine.compile": flag(),
    "engine.clip_gradient": real([0, -1], "above 0", right=[None, 1, 0.1], null=True),
    "engine.seed": whole(0, 2**63 - 1, "at least 0 and below 9,223,372,036,854,775,808"),
    "engine.checkpoint_every_steps": COUNT,
    "engine.log_every_steps": COUNT,
    **{f"data.augmentation.{name}": field for name, field in AUGMENTATION.items()},
    **{f"model.overrides.{name}": field for name, field in CONFIG.items()},
}

RECIPE = {
    "name": "tiny",
    "description": "a test",
    "reproduces": "nothing",
    "provenance": {"result": "none"},
    "model": {
        "name": "h0",
        "num_classes": 2,
        "in_chans": 1,
        "drop_rate": 0.1,
        "overrides": {"depths": [1, 1], "num_heads": [2, 2], "width_ratio": 0.125, "stem": "conv3x3", "stem_width": 8},
    },
    "data": {"source": "somewhere", "augmentation": {"image_size": 8, "in_chans": 1, "mean": [0.4], "std": [0.2]}},
    "optimizer": {"learning_rate": 0.1, "batch_size": 4},
    "schedule": {"epochs": 2},
    "regularization": {"label_smoothing": 0.1},
    "ema": {"decay": 0.9},
    "engine": {"accelerator": "cpu"},
}
REQUIRED = (
    *("model", "model.name", "data", "data.source", "data.augmentation"),
    *("optimizer", "optimizer.learning_rate", "schedule", "schedule.epochs"),
)
UNKNOWN = {
    "schedule.epcohs": "schedule.epochs",
    "modle": "model",
    "data.augmentation.hflips": "data.augmentation.hflip",
    "optimizer.lerning_rate": "optimizer.learning_rate",
    "engine.sed": "engine.seed",
    "model.overrides.halosize": "model.overrides.halo_size",
}
SECTIONS = ("model", "data", "data.augmentation", "optimizer", "schedule", "ema", "engine", "regularization")


def put(values: dict, key: str, value: object) -> None:
    """Set a dotted key in nested dictionaries."""
    *sections, name = key.split(".")
    for section in sections:
        values = values[section]
    values[name] = value


def remove(values: dict, key: str) -> None:
    """Remove a dotted key from nested dictionaries."""
    *sections, name = key.split(".")
    for section in sections:
        values = values[section]
    del values[name]
