"""How predictions change when images are shifted: our own measure of translation equivariance."""

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from halonet.benchmark.claims.schema import PIXELS
from halonet.data import ImageSource, KeyedDataset

BATCH = 256  # as `evaluate` takes, so that the same logits come out
EVERY = 5  # every fifth test image is used: more would cost more than they tell


class ShiftedImages:
    """Every n-th image of a source, moved to the right by some pixels, with black on the left."""

    def __init__(self, source: ImageSource, pixels: int, every: int = 1) -> None:
        self.class_names = source.class_names
        self._source = source
        self._pixels = pixels
        self._every = every

    def __len__(self) -> int:
        """Return the number of images."""
        return -(-len(self._source) // self._every)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return a moved image and its label."""
        image, label = self._source[index * self._every]
        # Pillow fills with black what a crop takes from outside the image.
        return image.crop((-self._pixels, 0, image.width - self._pixels, image.height)), label


@torch.inference_mode()
def classify(network: nn.Module, source: ImageSource, transform: Callable[[Image.Image], Tensor]) -> list[int]:
    """Predict the label of every image with a network in evaluation mode on the CPU."""
    loader = DataLoader(KeyedDataset(source, transform, seed=0, train=False), batch_size=BATCH)
    return [label for images, _ in loader for label in network(images).argmax(1).tolist()]


def measure_shifts(
    network: nn.Module,
    source: ImageSource,
    transform: Callable[[Image.Image], Tensor],
    unshifted: list[int],
    labels: list[int],
) -> dict[str, Any]:
    """Measure accuracy on every fifth image, moved, and the share of the `unshifted` predictions that this changes."""
    before, right = unshifted[::EVERY], labels[::EVERY]
    top1, changed = [], []
    for pixels in PIXELS:
        after = classify(network, ShiftedImages(source, pixels, EVERY), transform)
        top1.append(share(after, right))
        changed.append(100 - share(after, before))
    return {
        "direction": "right",
        "fill": "black",
        "images": len(before),
        "pixels": PIXELS,
        "unshifted_top1": share(before, right),
        "top1": top1,
        "changed": changed,
    }


def share(first: list[int], second: list[int]) -> float:
    """Percentage of positions where two lists agree."""
    return 100 * sum(a == b for a, b in zip(first, second, strict=True)) / len(first)
