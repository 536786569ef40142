"""Trained weights that come with the package, and how images are prepared for a model, in timm's terms."""

from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

from timm.models import DefaultCfg, PretrainedCfg

from halonet.errors import UserError, unknown_name
from halonet.models.config import HALONETS, STEMS, HaloNetConfig

TIMM_PREFIX = "halonet_paper_"
FOLDER = Path(__file__).with_name("weights")


class Trained(NamedTuple):
    """Weights of one row; the file also describes the training and its result, see `halonet.load`.

    Attributes:
        labels: Names of the classes, in the order of the outputs.
        mean: Mean of each channel, for values in [0, 1].
        std: Standard deviation of each channel, likewise.
        image_size: Side of the images in pixels.
        description: What the network was trained on.
    """

    labels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    description: str


# By ROW.TAG, the name of the file; made by tools/make_weights.py.
TRAINED = {
    "tiny28.fashion_mnist": Trained(
        labels=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        mean=(0.286,),
        std=(0.353,),
        image_size=28,
        description="9,000 images of Fashion-MNIST, by the recipe fashion_mnist",
    ),
    "mini32.cifar10": Trained(
        labels=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.247, 0.2435, 0.2616),
        image_size=32,
        description="CIFAR-10, by the recipe cifar10/minutes",
    ),
}


def tags_of(row: str) -> list[str]:
    """List the tags of a row's trained weights."""
    return [name.removeprefix(f"{row}.") for name in TRAINED if name.startswith(f"{row}.")]


def weights_path(name: str) -> Path | None:
    """Find trained weights by name: ROW.TAG, with or without timm's prefix, or TAG alone if one row has it."""
    name = name.removeprefix(TIMM_PREFIX)
    found = [known for known in TRAINED if name in (known, known.partition(".")[2])]
    return FOLDER / f"{found[0]}.safetensors" if len(found) == 1 else None


def pretrained_cfg(config: HaloNetConfig) -> dict[str, Any]:
    """Describe in timm's terms how images are prepared for a model without weights."""
    return _data_cfg(config, config.image_size) | {
        "num_classes": 1000,
        "input_size": (3, config.image_size, config.image_size),
        "crop_pct": 0.875,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    }


def trained_cfg(row: str, tag: str) -> dict[str, Any]:
    """Describe trained weights in timm's terms: their file, their classes and how images are prepared for them.

    Raises:
        UserError: The row has no weights of this tag.
    """
    if tag not in tags_of(row):
        if tags_of(row):
            raise UserError(unknown_name(f"weights of {row!r}", tag, tags_of(row)))
        raise UserError(
            f"no trained weights of {row!r} exist, only {', '.join(TRAINED)}. For a trained halo network take one of "
            "timm's, e.g. halonet.accelerate(timm.create_model('halonet50ts', pretrained=True))"
        )
    trained = TRAINED[f"{row}.{tag}"]
    return _data_cfg(HALONETS[row], trained.image_size) | {
        "file": str(FOLDER / f"{row}.{tag}.safetensors"),
        "architecture": TIMM_PREFIX + row,
        "tag": tag,
        "num_classes": len(trained.labels),
        "label_names": trained.labels,
        "input_size": (len(trained.mean), trained.image_size, trained.image_size),
        "crop_pct": 1.0,
        "mean": trained.mean,
        "std": trained.std,
        "description": trained.description,
    }


def default_cfg(row: str) -> DefaultCfg:
    """Make the entry of a row for timm's registry; without a tag it stands for a network without weights."""
    tags = tags_of(row)
    cfgs = {"": pretrained_cfg(HALONETS[row])} | {tag: trained_cfg(row, tag) for tag in tags}
    return DefaultCfg(
        tags=deque(cfgs), cfgs={tag: PretrainedCfg(**cfg) for tag, cfg in cfgs.items()}, is_pretrained=bool(tags)
    )


def _data_cfg(config: HaloNetConfig, image_size: int) -> dict[str, Any]:
    side = -(-image_size // (STEMS[config.stem].reduction * 2 ** (len(config.depths) - 1)))
    return {
        "pool_size": (side, side),
        "interpolation": "bicubic",
        "first_conv": "stem.conv",
        "classifier": "classifier",
        "license": "apache-2.0",
    }
