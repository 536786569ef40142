"""Subsets of a training set: images held out for validation, and balanced selections of fewer images."""

from collections.abc import Sequence

from PIL import Image

from halonet.data.classification.image_source import ImageSource, inspect_source, labels_of, names_of, read_scaled
from halonet.data.images import Header
from halonet.data.randomness import derive_order, derive_seed
from halonet.errors import UserError

HELD_OUT = 10  # without a validation split, every tenth training image is held out


class Subset:
    """The images of a source at some indices."""

    def __init__(self, source: ImageSource, indices: Sequence[int]) -> None:
        self.class_names = source.class_names
        self.variant = getattr(source, "variant", None)
        self.checksum = getattr(source, "checksum", None)
        self._source = source
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self._source[self._indices[index]]

    def read(self, index: int, shorter_side: int | None = None) -> tuple[Image.Image, int]:
        """Return an image, scaled down if the source can, and its label."""
        return read_scaled(self._source, self._indices[index], shorter_side)

    def inspect(self, index: int) -> Header:
        """Return an image's header."""
        return inspect_source(self._source, self._indices[index])

    @property
    def names(self) -> list[str]:
        """The names of the images."""
        names = names_of(self._source)
        return [names[index] for index in self._indices]

    @property
    def labels(self) -> list[int]:
        """The labels of the images."""
        labels = labels_of(self._source)
        return [labels[index] for index in self._indices]


def every_tenth(source: ImageSource, data: str) -> set[int]:
    """Indices of every tenth image in the stored order."""
    if len(source) < HELD_OUT:
        raise UserError(
            f"data set {data!r} has no validation split and {len(source)} training images, too few to hold every "
            f"{HELD_OUT}th out: add a folder 'val' beside 'train'"
        )
    return set(range(HELD_OUT - 1, len(source), HELD_OUT))


def part_of_each_class(source: ImageSource, data: str, part: float, seed: int) -> set[int]:
    """Indices of a fraction of each class, drawn by the images' names and the seed."""
    names = names_of(source)
    held_out: set[int] = set()
    for label, indices in enumerate(_by_class(source)):
        count = max(1, round(part * len(indices)))
        if count >= len(indices):
            raise UserError(
                f"class {source.class_names[label]!r} of {data!r} has {len(indices)} images, and {count} of them would "
                "be held out: each class needs at least two images, one to learn from and one to measure on"
            )
        held_out |= set(sorted(indices, key=lambda index: derive_order(seed, names[index]))[:count])
    return held_out


def _by_class(source: ImageSource) -> list[list[int]]:
    by_class: list[list[int]] = [[] for _ in source.class_names]
    for index, label in enumerate(labels_of(source)):
        by_class[label].append(index)
    return by_class


def balanced_subset(source: ImageSource, num_images: int) -> Subset:
    """Draw equally many images of each class, the same on every machine."""
    by_class = _by_class(source)
    kept: list[int] = []
    for label, indices in enumerate(by_class):
        wanted = num_images // len(by_class) + (label < num_images % len(by_class))
        if wanted > len(indices):
            raise UserError(
                f"data.train_images is {num_images:,}, which takes {wanted:,} images of class "
                f"{source.class_names[label]!r}, but there are {len(indices):,}: ask for fewer"
            )
        kept += sorted(indices, key=derive_seed)[:wanted]
    return Subset(source, sorted(kept))
