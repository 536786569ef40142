"""The LightningDataModule of classification."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from halonet.classification.recipe import DataSection, Recipe
from halonet.data import ImageSource, KeyedDataset, build_transform, load_source
from halonet.data.classification.shrunk import ShrunkImages
from halonet.data.classification.sources import available_splits, is_named
from halonet.data.classification.survey import survey
from halonet.engine.data import KeyedData
from halonet.errors import UserError, note_once


class ClassificationData(KeyedData):
    """Training, validation and test images of a named data set or a folder, with their labels; see `KeyedData`.

    Args:
        data: The data section of the recipe.
        batch_size: Images per optimizer step, over all processes and accumulated micro-batches.
        num_classes: The classes of the network, checked by `setup`; None skips the check.
        seed: Seeds the order, the augmentation and the choice of held-out images.
    """

    data: DataSection

    def __init__(self, data: DataSection, *, batch_size: int = 128, num_classes: int | None = None, seed: int = 0):
        super().__init__(data, batch_size=batch_size, seed=seed)
        self.num_classes = num_classes
        self.root = None if data.root is None else Path(data.root)
        self._sources: dict[str, ImageSource] = {}
        self._checked: set[str] = set()

    @classmethod
    def of(cls, recipe: Recipe) -> "ClassificationData":
        """Make the data module of a recipe; nothing is read yet.

        Raises:
            UserError: The recipe is incomplete.
        """
        recipe.require_complete()
        return cls(
            recipe.data,
            batch_size=recipe.optimizer.batch_size,
            num_classes=recipe.model.num_classes,
            seed=recipe.engine.seed,
        )

    @property
    def class_names(self) -> list[str]:
        """The class names, in the order of the labels."""
        return self._source("train").class_names

    def setup(self, stage: str | None = None) -> None:
        """Open the splits and read the headers of their images, to report all mistakes at once before training.

        Args:
            stage: As in Lightning: "fit" opens the splits for training and validation, "test" that for the test, None
                all.

        Raises:
            UserError: A split is missing or empty, an image cannot be read, there are fewer training images than one
                batch, there is only one class, or the network has another number of classes.
        """
        wanted: list[tuple[str, str | None]] = []
        if stage != "test":
            wanted += [("data.source", "train"), ("data.validation_split", self.data.validation_split)]
        if stage in ("test", None):
            wanted.append(("data.test_split", self.data.test_split))
        splits = {split: key for key, split in wanted if split is not None}
        available = available_splits(self.data.source, root=self.root)
        problems = [
            f"{key} takes the split {split!r}, but the data has {', '.join(available)}"
            for split, key in splits.items()
            if split not in available
        ]
        if "train" in splits and "train" in available:
            problems += self._problems_of_training()
        if problems:
            remedy = (
                f"set them, or let them follow from the data: halonet train photos --data.source {self.data.source}"
            )
            raise UserError(f"{self.data.source!r} does not fit: {'; '.join(problems)}: {remedy}")
        self._check_images([split for split in splits if split not in self._checked])

    def _problems_of_training(self) -> list[str]:
        problems = []
        source = self._source("train")
        require_classes(source.class_names, self.data.source)
        classes, images = len(source.class_names), len(source)
        if self.num_classes not in (None, classes):
            problems.append(
                f"it has {classes} classes, but model.num_classes is {self.num_classes}: set it to {classes}"
            )
        if images < self.batch_size:
            problems.append(
                f"it has {images} training images, too few for one batch of {self.batch_size}: "
                "lower optimizer.batch_size"
            )
        return problems

    def _check_images(self, splits: list[str]) -> None:
        """Read the headers of the images of splits; name all unreadable files before any work."""
        if not splits:
            return
        found = survey([self._source(split) for split in splits], self.data.source)
        self._checked |= set(splits)
        if found.in_color and self.data.augmentation.in_chans == 1 and not is_named(self.data.source):
            note_once(
                f"{self.data.source} has images in color, which become gray because data.augmentation.in_chans is 1; "
                f"for color: halonet train photos --data.source {self.data.source}"
            )

    def train_dataset(self) -> KeyedDataset:
        """The augmented images, by (epoch, index)."""
        transform = build_transform(self.data.augmentation, train=True)
        return KeyedDataset(self._source("train"), transform, self.seed, train=True)

    def evaluation_dataset(self, split: str) -> KeyedDataset:
        """The images of a split without augmentation, by index."""
        transform = build_transform(self.data.augmentation, train=False)
        return KeyedDataset(self._source(split), transform, self.seed, train=False)

    def describe(self) -> dict[str, Any]:
        """Describe the data for a checkpoint.

        Returns:
            `preprocessing`, `class_names`, `data`, `root` and `test_split`; and `hold_out` and `seed`, if images are
            held out at random.
        """
        random_hold_out = {} if self.data.hold_out is None else {"hold_out": self.data.hold_out, "seed": self.seed}
        return {
            "preprocessing": dataclasses.asdict(self.data.augmentation),
            "class_names": list(self.class_names),
            "data": self.data.source,
            "root": None if self.root is None else str(self.root),
            "test_split": self.data.test_split,
            **random_hold_out,
        }

    def _source(self, split: str) -> ImageSource:
        if split not in self._sources:
            source = load_source(
                self.data.source,
                split,
                root=self.root,
                train_images=self.data.train_images,
                hold_out=self.data.hold_out,
                seed=self.seed,
            )
            if self.data.shrink is not None:
                source = ShrunkImages(source, round(self.data.shrink * self.data.augmentation.image_size))
            self._sources[split] = source
        return self._sources[split]


def require_classes(class_names: Sequence[str], data: str) -> None:
    """Refuse to train on a single class, which any network predicts without learning anything.

    Args:
        class_names: In the order of the labels.
        data: The name of the data in messages.

    Raises:
        UserError: There is only one class.
    """
    if len(class_names) < 2:
        raise UserError(
            f"{data!r} has one class, {class_names[0]!r}, but a classifier learns to tell two or more apart: "
            "give each class a folder of its own"
        )
