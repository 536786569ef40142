"""The LightningDataModule: an image data set in an order, and with augmentations, that depend on the seed alone."""

from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader

from halonet.data import (
    AugmentationConfig,
    ImageSource,
    KeyedDataset,
    build_transform,
    derive_seed,
    load_source,
)
from halonet.errors import UserError
from halonet.training.sampler import EpochSampler


class ClassificationData(lightning.LightningDataModule):
    """Training, validation and test images of a named data set or a folder.

    Nothing depends on the number of workers. The module knows how far training got, so the training loader of a
    resumed run begins at the next batch. Over several processes, pass `use_distributed_sampler=False` to the Trainer:
    the images are already shared out.

    Args:
        data: A named data set or a folder, as `halonet.data.load_source` takes it.
        augmentation: Image size, channels, normalization and the training augmentations.
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
        batch_size: int = 128,
        validation_split: str | None = "validation",
        test_split: str = "test",
        workers: int = 0,
        seed: int = 0,
    ):
        super().__init__()
        self.data = data
        self.augmentation = augmentation
        self.batch_size = batch_size
        self.validation_split = validation_split
        self.test_split = test_split
        self.workers = workers
        self.seed = seed
        self.position = (0, 0)
        """The (epoch, micro-batch) that training comes to next."""
        if validation_split is None:
            # Lightning asks whether there is such a hook, and does not expect one without a loader.
            self.val_dataloader = None  # pyright: ignore[reportAttributeAccessIssue]
        self._sources: dict[str, ImageSource] = {}

    @property
    def class_names(self) -> list[str]:
        """The class names, by label."""
        return self._source("train").class_names

    def setup(self, stage: str | None = None) -> None:
        """Open the splits, so that what is wrong with them is said before training.

        Args:
            stage: Lightning's: "fit" opens those of training and validation, "test" that of the test, None all.

        Raises:
            UserError: A split is missing or empty, or there are fewer training images than one batch.
        """
        if stage != "test":
            if self.validation_split is not None:
                self._source(self.validation_split)
            available = len(self._source("train"))
            if available < self.batch_size:
                raise UserError(
                    f"{self.data!r} has {available} training images, too few for one batch of {self.batch_size}: "
                    "lower optimizer.batch_size"
                )
        if stage in ("test", None):
            self._source(self.test_split)

    def train_dataloader(self) -> DataLoader:
        """The training batches, beginning at `position`."""
        trainer = self.trainer
        micro_batches = trainer.accumulate_grad_batches if trainer else 1
        world_size = trainer.world_size if trainer else 1
        epoch, first_batch = self.position
        transform = build_transform(self.augmentation, train=True)
        dataset = KeyedDataset(self._source("train"), transform, self.seed, train=True)
        sampler = EpochSampler(
            len(dataset),
            self.batch_size,
            micro_batches=micro_batches,
            seed=self.seed,
            rank=trainer.global_rank if trainer else 0,
            world_size=world_size,
            epoch=epoch,
            first_batch=first_batch,
        )
        return DataLoader(
            dataset,
            batch_size=sampler.batch_size,
            sampler=sampler,
            drop_last=True,
            **self._loader_options(),
        )

    def val_dataloader(self) -> DataLoader:
        """The validation images, each once over all processes."""
        assert self.validation_split is not None
        return self._evaluation_loader(self._source(self.validation_split))

    def test_dataloader(self) -> DataLoader:
        """The test images, each once over all processes."""
        return self._evaluation_loader(self._source(self.test_split))

    def state_dict(self) -> dict[str, Any]:
        """How far training got, and through how many images."""
        return {"epoch": self.position[0], "batch": self.position[1], "images": len(self._source("train"))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint was written.

        Args:
            state_dict: As `state_dict()` returned it.

        Raises:
            UserError: The training images are not as many as they were.
        """
        images = len(self._source("train"))
        if images != state_dict["images"]:
            raise UserError(
                f"{self.data!r} has {images} training images, but had {state_dict['images']} when the checkpoint was "
                "written: restore the data, or start anew in another run folder"
            )
        self.position = (state_dict["epoch"], state_dict["batch"])

    def _source(self, split: str) -> ImageSource:
        if split not in self._sources:
            self._sources[split] = load_source(self.data, split)
        return self._sources[split]

    def _evaluation_loader(self, source: ImageSource) -> DataLoader:
        transform = build_transform(self.augmentation, train=False)
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return DataLoader(
            KeyedDataset(source, transform, self.seed, train=False),
            batch_size=max(1, self.batch_size // world_size),
            sampler=range(rank, len(source), world_size),
            **self._loader_options(),
        )

    def _loader_options(self) -> dict[str, Any]:
        return {
            "num_workers": self.workers,
            "persistent_workers": self.workers > 0,
            "pin_memory": torch.cuda.is_available(),
            # A loader draws a base seed for its workers, by default from the global generator.
            "generator": torch.Generator().manual_seed(derive_seed(self.seed)),
        }
