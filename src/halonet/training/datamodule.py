"""The LightningDataModule of classification: images in an order, and with augmentations, that depend on the seed."""

import dataclasses
from pathlib import Path
from typing import Any

from halonet.data import AugmentationConfig, ImageSource, KeyedDataset, build_transform, load_source
from halonet.training.keyed_data import KeyedData


class ClassificationData(KeyedData):
    """Training, validation and test images of a named data set or a folder, with their labels.

    Nothing depends on the number of workers. The module knows how far training got, so the training loader of a
    resumed run begins at the next batch. Over several processes, pass `use_distributed_sampler=False` to the Trainer:
    the images are already shared out.

    Args:
        data: A named data set or a folder, as `halonet.data.load_source` takes it.
        augmentation: Image size, channels, normalization and the training augmentations.
        root: The folder that a named data set lies in, see `halonet.data.load_source`.
        train_images: How many training images to keep; None keeps all.
        batch_size: Images per optimizer step, over all processes and accumulated micro-batches.
        validation_split: The split of `data` that is validated on; None for no validation.
        test_split: The split that the test takes.
        workers: Processes that load images; 0 loads in this one.
        seed: Of order and augmentation.
    """

    def __init__(
        self,
        data: str,
        augmentation: AugmentationConfig,
        *,
        root: str | Path | None = None,
        train_images: int | None = None,
        batch_size: int = 128,
        validation_split: str | None = "validation",
        test_split: str = "test",
        workers: int = 0,
        seed: int = 0,
    ):
        super().__init__(
            data,
            batch_size=batch_size,
            validation_split=validation_split,
            test_split=test_split,
            workers=workers,
            seed=seed,
        )
        self.augmentation = augmentation
        self.root = None if root is None else Path(root)
        self.train_images = train_images
        self._sources: dict[str, ImageSource] = {}

    @property
    def class_names(self) -> list[str]:
        """The class names, by label."""
        return self._source("train").class_names

    def train_dataset(self) -> KeyedDataset:
        """The augmented images, by (epoch, index)."""
        transform = build_transform(self.augmentation, train=True)
        return KeyedDataset(self._source("train"), transform, self.seed, train=True)

    def evaluation_dataset(self, split: str) -> KeyedDataset:
        """The images of a split as evaluation takes them, by index."""
        transform = build_transform(self.augmentation, train=False)
        return KeyedDataset(self._source(split), transform, self.seed, train=False)

    def describe(self) -> dict[str, Any]:
        """What a checkpoint must say of the data: `preprocessing`, `class_names`, `data`, `root` and `test_split`."""
        return {
            "preprocessing": dataclasses.asdict(self.augmentation),
            "class_names": list(self.class_names),
            "data": self.data,
            "root": None if self.root is None else str(self.root),
            "test_split": self.test_split,
        }

    def _source(self, split: str) -> ImageSource:
        if split not in self._sources:
            self._sources[split] = load_source(self.data, split, root=self.root, train_images=self.train_images)
        return self._sources[split]
