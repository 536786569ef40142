"""The LightningDataModule of detection."""

import dataclasses
from typing import Any

from halonet.data.detection.coco import DetectionSource, load_detection_source
from halonet.data.detection.dataset import KeyedDetections, build_detection_transform, collate
from halonet.detection.recipe import DetectionDataSection, DetectionRecipe
from halonet.engine.data import KeyedData
from halonet.errors import UserError


class DetectionData(KeyedData):
    """Training, validation and test images of a data set with instances; see `KeyedData`.

    Evaluation takes one image at a time, because a batch pads its smaller images, which changes detections.

    Args:
        data: The data section of the recipe.
        batch_size: Images per optimizer step, over all processes and accumulated micro-batches.
        masks: Whether to read masks.
        seed: Seeds the order and the augmentation.
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
        """The class names, in the order of the labels, which start at 1."""
        return self._train_source().class_names

    @property
    def evaluation_batch_size(self) -> int:
        """One image at a time."""
        return 1

    def setup(self, stage: str | None = None) -> None:
        """Open the splits, so that mistakes are found before training.

        Args:
            stage: As in Lightning: "fit" opens the splits for training and validation, "test" that for the test, None
                all.

        Raises:
            UserError: A split is missing or has no instances to measure, or there are fewer training images than one
                batch.
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
        """The images of a split with their ground truth, including those without instances."""
        return self._source(split, skip_empty=False)

    def train_dataset(self) -> KeyedDetections:
        """The augmented images, by (epoch, index)."""
        transform = build_detection_transform(self.data.augmentation, train=True)
        return KeyedDetections(self._train_source(), transform, self.seed, train=True, repeats=self.data.repeats)

    def evaluation_dataset(self, split: str) -> KeyedDetections:
        """The images of a split without augmentation, by index."""
        transform = build_detection_transform(self.data.augmentation, train=False)
        return KeyedDetections(self.evaluation_source(split), transform, self.seed, train=False)

    def describe(self) -> dict[str, Any]:
        """Describe the data for a checkpoint: `preprocessing`, names and ids of the categories, and its origin."""
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
