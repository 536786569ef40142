"""The LightningDataModule of detection: images and instances in an order that depends on the seed alone."""

import dataclasses
from typing import Any

from halonet.data.detection.coco import DetectionSource, load_detection_source
from halonet.data.detection.dataset import KeyedDetections, build_detection_transform, collate
from halonet.detection.recipe import DetectionDataSection, DetectionRecipe
from halonet.engine.data import KeyedData
from halonet.errors import UserError


class DetectionData(KeyedData):
    """Training, validation and test images of a data set with instances.

    Nothing depends on the number of workers. The module knows how far training got, so the training loader of a
    resumed run begins at the next batch. Evaluation takes one image at a time: a batch pads its smaller images, and a
    detector takes padding for image.

    Args:
        data: Which images, and what training does to them.
        batch_size: Images per optimizer step, over all processes and accumulated micro-batches.
        masks: Whether instances have masks; False reads none.
        seed: Of order and augmentation.
    """

    collate = staticmethod(collate)
    data: DetectionDataSection

    def __init__(self, data: DetectionDataSection, *, batch_size: int = 16, masks: bool = True, seed: int = 0):
        super().__init__(data, batch_size=batch_size, seed=seed)
        self.masks = masks
        self._sources: dict[tuple[str, bool], DetectionSource] = {}

    @classmethod
    def of(cls, recipe: DetectionRecipe) -> "DetectionData":
        """Make the data module of a recipe; nothing is read yet.

        Raises:
            UserError: The recipe is incomplete.
        """
        recipe.require_complete()
        batch_size = recipe.optimizer.batch_size
        return cls(recipe.data, batch_size=batch_size, masks=recipe.draws_masks, seed=recipe.engine.seed)

    @property
    def class_names(self) -> list[str]:
        """The class names, by label - 1."""
        return self._train_source().class_names

    @property
    def evaluation_batch_size(self) -> int:
        """One image at a time."""
        return 1

    def setup(self, stage: str | None = None) -> None:
        """Open the splits, so that what is wrong with them is said before training.

        Args:
            stage: Lightning's: "fit" opens those of training and validation, "test" that of the test, None all.

        Raises:
            UserError: A split is missing, has nothing to be measured against, or there are fewer training images than
                one batch.
        """
        super().setup(stage)
        for split in {
            self.data.validation_split if stage != "test" else None,
            self.data.test_split if stage != "fit" else None,
        }:
            if split is not None and not self.evaluation_source(split).ground_truth["annotations"]:
                raise UserError(
                    f"split {split!r} of {self.data.source!r} has no instances, so nothing can be measured on it"
                )

    def evaluation_source(self, split: str) -> DetectionSource:
        """The images of a split with their ground truth, those without instances included."""
        return self._source(split, skip_empty=False)

    def train_dataset(self) -> KeyedDetections:
        """The augmented images, by (epoch, index)."""
        transform = build_detection_transform(self.data.augmentation, train=True)
        return KeyedDetections(self._train_source(), transform, self.seed, train=True, repeats=self.data.repeats)

    def evaluation_dataset(self, split: str) -> KeyedDetections:
        """The images of a split as evaluation takes them, by index."""
        transform = build_detection_transform(self.data.augmentation, train=False)
        return KeyedDetections(self.evaluation_source(split), transform, self.seed, train=False)

    def describe(self) -> dict[str, Any]:
        """What a checkpoint must say: `preprocessing`, the classes' names and categories, and which data it was."""
        source = self._train_source()
        return {
            "preprocessing": dataclasses.asdict(self.data.augmentation),
            "class_names": list(source.class_names),
            "category_ids": list(source.category_ids),
            "data": self.data.source,
            "hold_out": self.data.hold_out,
            "test_split": self.data.test_split,
        }

    def _train_source(self) -> DetectionSource:
        return self._source("train", skip_empty=self.data.skip_empty)

    def _source(self, split: str, skip_empty: bool) -> DetectionSource:
        if (split, skip_empty) not in self._sources:
            self._sources[split, skip_empty] = load_detection_source(
                self.data.source, split, skip_empty=skip_empty, masks=self.masks, hold_out=self.data.hold_out or 0.0
            )
        return self._sources[split, skip_empty]
