"""The embedded data set: 12,000 photographs of clothing, shipped with the package."""

from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parents[1] / "embedded" / "fashion_mnist"
ARCHIVE = FOLDER / "fashion_mnist_subset.npz"
CLASS_NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
NUM_VALIDATION = 1_000
SPLITS = ("train", "validation", "test")


class FashionMNIST:
    """A balanced subset of Fashion-MNIST: gray photographs of 28 x 28 pixels in ten classes.

    Args:
        split: "train" (9,000 images), "validation" (1,000 of the official training set, for all choices) or "test"
            (2,000 of the official test set).
    """

    def __init__(self, split: str) -> None:
        part = {
            "train": slice(None, -NUM_VALIDATION),
            "validation": slice(-NUM_VALIDATION, None),
            "test": slice(None),
        }[split]
        prefix = "test" if split == "test" else "train"
        with np.load(ARCHIVE, allow_pickle=False) as arrays:
            self._images = arrays[f"{prefix}_images"][part]
            self.labels: list[int] = arrays[f"{prefix}_labels"][part].tolist()
        self.class_names = list(CLASS_NAMES)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return an image of mode "L" and its label."""
        return Image.fromarray(self._images[index]), self.labels[index]
