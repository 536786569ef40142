"""The transforms and the data set for detection: images and targets of a source, transformed together reproducibly."""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2

from halonet.data.classification.transforms import GrayOrColor, Mean, Std
from halonet.data.detection.coco import DetectionSource, DetectionTarget
from halonet.data.keyed import KeyedItems
from halonet.data.nullable import OrNull
from halonet.rules import Count, Probability, Side, check_arguments, check_together, within
from halonet.schemas import record

DetectionItem = tuple[Tensor, DetectionTarget]
"""A float32 image [channels, height, width] in [0, 1], and its target."""

SMALLEST_AREA = 1.0  # square pixels; smaller remainders after cropping or scaling are only noise

Scale = Annotated[float, within(least=0.01, most=100)]


@record
class DetectionAugmentation:
    """How images and their instances become inputs of a detector, in training and in evaluation.

    Training scales, crops, flips and distorts colors, in this order; evaluation only converts. The model itself
    normalizes and, in evaluation and prediction, scales images, because it scales its boxes and masks back.

    Attributes:
        in_chans: 1 for gray, 3 for color; images are converted.
        mean: Mean of each channel, for values in [0, 1]; for the model.
        std: Standard deviation of each channel, likewise.
        min_size: The model scales an image's shorter side to this in evaluation and prediction, in pixels ...
        max_size: ... unless the longer side would exceed this.
        train_resize: "shortest": the shorter side is scaled to a random one of `train_min_sizes`, unless the longer
            would exceed `max_size`; "jitter": the image is scaled to fit into a square of `jitter_size`, times a random
            factor from `jitter_scale`, then cropped at random to at most that square.
        train_min_sizes: For "shortest", in pixels.
        jitter_size: For "jitter": side of the square in pixels. Smaller images are padded only in a batch.
        jitter_scale: For "jitter": smallest and largest factor.
        hflip: Probability of a horizontal flip.
        vflip: Probability of a vertical flip.
        photometric: Whether to randomly distort brightness, contrast, saturation, hue and the order of the channels;
            color images only.

    In a recipe, null derives `min_size`, `max_size` and `jitter_size` from the data.

    Raises:
        RuleError: Some values break their rules; it names them all.
    """

    in_chans: GrayOrColor = 3
    mean: tuple[Mean, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[Std, ...] = IMAGENET_DEFAULT_STD
    min_size: OrNull[Side] = 800
    max_size: OrNull[Side] = 1333
    train_resize: Literal["shortest", "jitter"] = "shortest"
    train_min_sizes: tuple[Side, ...] = (640, 672, 704, 736, 768, 800)
    jitter_size: OrNull[Side] = 1024
    jitter_scale: tuple[Scale, Scale] = (0.8, 1.25)
    hflip: Probability = 0.5
    vflip: Probability = 0.0
    photometric: bool = False

    def __post_init__(self) -> None:
        one_each = f"{self.in_chans} number(s), one a channel"
        limit = math.inf if self.max_size is None else self.max_size
        largest = max(self.train_min_sizes, default=math.inf)
        check_together(
            self,
            {
                "mean": (len(self.mean) == self.in_chans, one_each),
                "std": (len(self.std) == self.in_chans, one_each),
                "min_size": (
                    self.min_size is None or self.min_size <= limit,
                    f"at most max_size, which is {self.max_size}",
                ),
                "train_min_sizes": (
                    self.train_resize == "jitter" or largest <= limit,
                    f"one or more sizes of at most max_size, which is {self.max_size}",
                ),
                "jitter_scale": (self.jitter_scale[0] <= self.jitter_scale[1], "two numbers, the smaller one first"),
                "photometric": (not self.photometric or self.in_chans == 3, "false where in_chans is 1"),
            },
        )


def build_detection_transform(
    config: DetectionAugmentation, train: bool
) -> Callable[[Image.Image, DetectionTarget], DetectionItem]:
    """Build the transform for training or for evaluation.

    The training transform draws from PyTorch's global generator, which `KeyedDetections` seeds and restores.

    Returns:
        A picklable function from a PIL image and its target (see `halonet.data.detection.coco`) to a float32 image
        [in_chans, height, width] in [0, 1], not normalized, and its transformed target. Training targets omit instances
        whose mask is empty or whose box has less than one square pixel; a random crop recomputes boxes from masks, or
        clips them if there are none.
    """
    return _DetectionTransform(config, train)


class KeyedDetections(KeyedItems[DetectionItem]):
    """Transformed images and targets of a source; their randomness depends only on the key (see `KeyedItems`).

    Args:
        source: The images.
        transform: See `build_detection_transform`.
        seed: The run's seed.
        train: Whether the transform is random; keys are then (epoch, index), else the index.
        repeats: How often an epoch repeats each image, with other augmentation, for small data sets; index i
            means image i % len(source).

    Raises:
        UserError: `repeats` is under 1.
    """

    def __init__(
        self,
        source: DetectionSource,
        transform: Callable[[Image.Image, DetectionTarget], DetectionItem],
        seed: int,
        train: bool,
        repeats: int = 1,
    ) -> None:
        check_arguments(repeats=(repeats, Count))
        super().__init__(seed, train)
        self.source = source
        self.transform = transform
        self.repeats = repeats

    @property
    def class_names(self) -> list[str]:
        """The source's class names, by label - 1."""
        return self.source.class_names

    def __len__(self) -> int:
        """Return the number of items of an epoch: images times repeats."""
        return len(self.source) * self.repeats

    def item(self, index: int) -> DetectionItem:
        """Return the transformed image and its target."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside of the {len(self)} items")
        return self.transform(*self.source[index % len(self.source)])


def collate(batch: Sequence[DetectionItem]) -> tuple[list[Tensor], list[DetectionTarget]]:
    """Make lists of images and targets: images differ in size until the model pads them."""
    images, targets = zip(*batch, strict=True)
    return list(images), list(targets)


class _DetectionTransform:
    def __init__(self, config: DetectionAugmentation, train: bool) -> None:
        self.mode = "L" if config.in_chans == 1 else "RGB"
        self.augment = v2.Compose(_training_steps(config)) if train else None
        self.crops = config.train_resize == "jitter"

    def __call__(self, image: Image.Image, target: DetectionTarget) -> DetectionItem:
        pixels: Tensor = tv_tensors.Image(v2.functional.pil_to_tensor(image.convert(self.mode)))
        if self.augment is not None:
            boxes = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=pixels.shape[-2:])  # pyright: ignore[reportCallIssue, reportArgumentType]
            masks = {"masks": tv_tensors.Mask(target["masks"])} if "masks" in target else {}
            pixels, moved = self.augment(pixels, target | {"boxes": boxes} | masks)
            target = _without_lost_instances(moved, boxes_from_masks=self.crops)
        return pixels.as_subclass(Tensor).float() / 255, target


def _training_steps(config: DetectionAugmentation) -> list[Callable]:
    steps: list[Callable]
    if config.train_resize == "jitter":
        square = (config.jitter_size, config.jitter_size)
        steps = [v2.ScaleJitter(square, config.jitter_scale), _RandomPart(config.jitter_size)]
    else:
        steps = [v2.RandomShortestSize(list(config.train_min_sizes), config.max_size)]
    steps += [v2.RandomHorizontalFlip(config.hflip), v2.RandomVerticalFlip(config.vflip)]
    if config.photometric:
        steps.append(v2.RandomPhotometricDistort())
    return steps


class _RandomPart(v2.Transform):
    """torchvision's RandomCrop, also for images with one or both sides smaller than the crop."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def make_params(self, flat_inputs: list[Any]) -> dict[str, int]:
        height, width = v2.functional.get_size(flat_inputs[0])  # the image comes first
        part_height, part_width = min(height, self.size), min(width, self.size)
        return {
            "top": int(torch.randint(height - part_height + 1, ())),
            "left": int(torch.randint(width - part_width + 1, ())),
            "height": part_height,
            "width": part_width,
        }

    def transform(self, inpt: Any, params: dict[str, int]) -> Any:
        return self._call_kernel(v2.functional.crop, inpt, **params)


def _without_lost_instances(target: DetectionTarget, boxes_from_masks: bool) -> DetectionTarget:
    """The target as plain tensors, without instances that were cropped away."""
    plain = {key: target[key].as_subclass(Tensor) for key in ("boxes", "labels", "masks") if key in target}
    is_visible = torch.ones(len(plain["labels"]), dtype=torch.bool)
    if "masks" in plain:
        is_visible = plain["masks"].bool().flatten(1).any(1)
        if boxes_from_masks:
            plain["boxes"] = masks_to_boxes(plain["masks"])
            plain["boxes"][:, 2:] += 1  # masks give the last pixel, a box ends at its far edge
    boxes = plain["boxes"]
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    kept = is_visible & (width * height >= SMALLEST_AREA)
    return target | {key: values[kept] for key, values in plain.items()}
