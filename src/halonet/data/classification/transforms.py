"""Image transforms for training and evaluation: one configuration, built from timm's and torchvision's transforms."""

import math
import random
from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation, str_to_pil_interp
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from halonet.data.nullable import OrNull
from halonet.errors import UserError
from halonet.rules import Probability, Rule, Side, check_together, within
from halonet.schemas import record

# The operations of the published RandAugment for ImageNet without Cutout, which timm replaces by random erasing. timm's
# names without "Increasing" have the published levels; TranslateX and TranslateY move by pixels, as published.
RANDAUGMENT_OPERATIONS = (
    *("AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "SolarizeAdd", "Color"),
    *("Contrast", "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY"),
)
RANDAUGMENT_SCALE = 10  # the magnitude of an operation's nominal strength; larger ones extrapolate

Mean = Annotated[float, within(least=0, most=1)]
GrayOrColor = Annotated[int, Rule("1 (gray) or 3 (color)", lambda channels: channels in (1, 3))]
AspectRatio = Annotated[float, within(least=0.01, most=100)]
Std = Annotated[float, within(least=0.001, most=10)]


@record
class AugmentationConfig:
    """How images become network inputs, in training and in evaluation.

    Training crops, flips, jitters and augments in this order, then normalizes and erases. Evaluation scales the shorter
    side to image_size / crop_pct and crops the center.

    Attributes:
        image_size: Side of the square input in pixels. In a recipe, null derives it from the data.
        in_chans: 1 for gray, 3 for color; images are converted.
        mean: Mean of each channel, for values in [0, 1].
        std: Standard deviation of each channel, likewise.
        interpolation: How images are resampled.
        crop_pct: Fraction of the scaled image's side that evaluation keeps.
        train_crop: "random_resized": a random part of the image, scaled to image_size; "pad": the shorter side scaled
            to image_size, then a random square of that size from the image with a black border of `padding` pixels;
            "none": evaluation's crop. In a recipe, null derives it from the data.
        padding: Width of that border in pixels.
        scale: Smallest and largest area of the random part, as a fraction of the image's.
        ratio: Smallest and largest aspect ratio of the random part.
        hflip: Probability of a horizontal flip.
        color_jitter: Largest relative change of brightness, contrast and saturation; 0 is off.
        randaugment_magnitude: RandAugment's magnitude (arXiv:1909.13719); 0 is off. The paper's recipes use 6 to 31.
        randaugment_num_ops: Operations applied to each image.
        randaugment_probability: Probability that a chosen operation is applied.
        random_erasing: Probability of filling a random rectangle of the normalized image with 0.

    Raises:
        RuleError: Some values break their rules; it names them all.
    """

    image_size: OrNull[Side] = 224
    in_chans: GrayOrColor = 3
    mean: tuple[Mean, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[Std, ...] = IMAGENET_DEFAULT_STD
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    crop_pct: Annotated[float, within(least=0.1, most=1)] = 0.875
    train_crop: OrNull[Literal["random_resized", "pad", "none"]] = "random_resized"
    padding: Annotated[int, within(least=0, most=16_384)] = 4
    scale: tuple[Annotated[float, within(above=0, most=1)], Annotated[float, within(above=0, most=1)]] = (0.08, 1.0)
    ratio: tuple[AspectRatio, AspectRatio] = (3 / 4, 4 / 3)
    hflip: Probability = 0.5
    color_jitter: Annotated[float, within(least=0, most=10)] = 0.0
    randaugment_magnitude: Annotated[int, within(least=0, most=100)] = 0
    randaugment_num_ops: Annotated[int, within(least=1, most=100)] = 2
    randaugment_probability: Probability = 1.0
    random_erasing: Probability = 0.0

    def __post_init__(self) -> None:
        one_each, ascending = f"{self.in_chans} number(s), one a channel", "two numbers, the smaller one first"
        check_together(
            self,
            {
                "mean": (len(self.mean) == self.in_chans, one_each),
                "std": (len(self.std) == self.in_chans, one_each),
                "scale": (self.scale[0] <= self.scale[1], ascending),
                "ratio": (self.ratio[0] <= self.ratio[1], ascending),
            },
        )


def build_transform(config: AugmentationConfig, train: bool) -> Callable[[Image.Image], Tensor]:
    """Build the transform for training or for evaluation.

    The training transform draws from the global generators of Python, NumPy and PyTorch, which
    `halonet.data.KeyedDataset` seeds and restores.

    Returns:
        A picklable function from a PIL image of any mode and size to a normalized float32 tensor
        [in_chans, image_size, image_size].

    Raises:
        UserError: `image_size` or `train_crop` is still null.
    """
    for name in ("image_size", "train_crop"):
        if getattr(config, name) is None:
            raise UserError(f"augmentation: {name} is null: give a value, or let training take one from the data")
    steps: list[Callable] = [_ToMode("L" if config.in_chans == 1 else "RGB")]
    steps += _training_steps(config) if train else _center_crop(config)
    steps.append(_ToNormalizedTensor(config.mean, config.std))
    if train and config.random_erasing > 0:
        steps.append(RandomErasing(config.random_erasing, mode="const", device="cpu"))
    return transforms.Compose(steps)


def _training_steps(config: AugmentationConfig) -> list[Callable]:
    steps: list[Callable]
    if config.train_crop == "pad":
        steps = [
            transforms.Resize(config.image_size, InterpolationMode(config.interpolation)),
            _PadCropFlip(config.image_size, config.padding, config.hflip),
        ]
    else:
        steps = _center_crop(config) if config.train_crop == "none" else [_random_resized_crop(config)]
        steps.append(transforms.RandomHorizontalFlip(config.hflip))
    if config.color_jitter > 0:
        steps.append(transforms.ColorJitter(*[config.color_jitter] * 3))
    if config.randaugment_magnitude > 0:
        steps.append(_randaugment(config))
    return steps


def _center_crop(config: AugmentationConfig) -> list[Callable]:
    scaled_size = math.floor(config.image_size / config.crop_pct)
    return [
        transforms.Resize(scaled_size, InterpolationMode(config.interpolation)),
        transforms.CenterCrop(config.image_size),
    ]


def _random_resized_crop(config: AugmentationConfig) -> Callable:
    return RandomResizedCropAndInterpolation(
        config.image_size, scale=config.scale, ratio=config.ratio, interpolation=config.interpolation
    )


def _randaugment(config: AugmentationConfig) -> Callable:
    fill = tuple(round(255 * value) for value in config.mean)
    parameters = {
        # 100 pixels at magnitude 10, as published for 224 pixels; the same fraction of smaller images
        "translate_const": min(100, int(0.45 * config.image_size)),
        "img_mean": fill if config.in_chans == 3 else fill[0],
        "interpolation": str_to_pil_interp(config.interpolation),
    }
    magnitude = config.randaugment_magnitude
    recipe = (
        f"rand-m{magnitude}-n{config.randaugment_num_ops}"
        f"-p{config.randaugment_probability:f}-mmax{max(magnitude, RANDAUGMENT_SCALE)}"
    )
    return rand_augment_transform(recipe, parameters, list(RANDAUGMENT_OPERATIONS))


class _ToMode:
    def __init__(self, mode: str) -> None:
        self.mode = mode

    def __call__(self, image: Image.Image) -> Image.Image:
        return image if image.mode == self.mode else image.convert(self.mode)


class _PadCropFlip:
    """torchvision's RandomCrop(padding=...) and RandomHorizontalFlip, in a fifth of their time on tiny images."""

    def __init__(self, image_size: int, padding: int, hflip: float) -> None:
        self.image_size = image_size
        self.padding = padding
        self.hflip = hflip

    def __call__(self, image: Image.Image) -> Image.Image:
        left = random.randint(-self.padding, image.width - self.image_size + self.padding)
        top = random.randint(-self.padding, image.height - self.image_size + self.padding)
        # Pillow fills the part of a crop that is outside the image with black.
        crop = image.crop((left, top, left + self.image_size, top + self.image_size))
        return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < self.hflip else crop


class _ToNormalizedTensor:
    """torchvision's ToTensor and Normalize, in a fifth of their time on tiny images."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.factor = torch.tensor([1 / (255 * value) for value in std]).reshape(-1, 1, 1)
        self.offset = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).reshape(-1, 1, 1)

    def __call__(self, image: Image.Image) -> Float[Tensor, "channels height width"]:
        pixels = torch.from_numpy(np.array(image)).reshape(image.height, image.width, -1)
        return torch.addcmul(self.offset, pixels.permute(2, 0, 1), self.factor).contiguous()
