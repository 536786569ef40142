"""The data module that all tasks share: its order depends on the seed alone, and it can resume within an epoch."""

from abc import abstractmethod
from collections.abc import Callable, Sized
from typing import Any, NamedTuple, Protocol, runtime_checkable

import lightning
import torch
from torch.utils.data import DataLoader

from halonet.data import derive_seed
from halonet.engine.sampler import EpochSampler
from halonet.errors import UserError
from halonet.interrupts import shield_worker


@runtime_checkable
class Keyed(Sized, Protocol):
    """Items by index, or in training by (epoch, index)."""

    def __getitem__(self, key: Any, /) -> Any:
        """Return an item."""
        ...


class Position(NamedTuple):
    """A micro-batch of an epoch, both counted from 0."""

    epoch: int
    batch: int


class KeyedData(lightning.LightningDataModule):
    """Training, validation and test images of one data set.

    A training batch comes from `train_dataloader`: `EpochSampler` chooses the images, `KeyedItems` loads them, and
    `collate` joins them. Results do not depend on the number of workers. The module knows how far training has come, so the training loader
    of a resumed run begins at the next batch. With several processes, pass `use_distributed_sampler=False` to the
    Trainer: this module already divides the images among them.

    Args:
        data: The data section of the recipe, with `source`, `validation_split`, `test_split` and `workers`.
        batch_size: Images per optimizer step, over all processes and accumulated micro-batches.
        seed: Seeds the order and the augmentation.
    """

    collate: Callable[[list[Any]], Any] | None = None
    """Makes a batch of items; None stacks them."""

    def __init__(self, data: Any, *, batch_size: int, seed: int):
        super().__init__()
        self.data = data
        self.batch_size = batch_size
        self.seed = seed
        self.position = Position(0, 0)
        """The micro-batch to train on next."""
        if data.validation_split is None:
            # Lightning validates if this hook exists, and then requires a loader.
            self.val_dataloader = None  # pyright: ignore[reportAttributeAccessIssue]

    @property
    @abstractmethod
    def class_names(self) -> list[str]:
        """The class names, in the order of the labels."""

    @abstractmethod
    def train_dataset(self) -> Keyed:
        """The training items, by (epoch, index)."""

    @abstractmethod
    def evaluation_dataset(self, split: str) -> Keyed:
        """The items of a split, by index."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Describe the data for a checkpoint, in JSON values."""

    @property
    def evaluation_batch_size(self) -> int:
        """Images per batch in validation and test, over all processes."""
        return self.batch_size

    def setup(self, stage: str | None = None) -> None:
        """Open the splits, so that mistakes are found before training.

        Args:
            stage: As in Lightning: "fit" opens the splits for training and validation, "test" that for the test, None
                all.

        Raises:
            UserError: A split is missing or empty, or there are fewer training images than one batch.
        """
        if stage != "test":
            if self.data.validation_split is not None:
                self.evaluation_dataset(self.data.validation_split)
            available = len(self.train_dataset())
            if available < self.batch_size:
                raise UserError(
                    f"{self.data.source!r} has {available} training images, too few for one batch of "
                    f"{self.batch_size}: lower optimizer.batch_size"
                )
        if stage in ("test", None):
            self.evaluation_dataset(self.data.test_split)

    def train_dataloader(self) -> DataLoader:
        """Load training batches from `position` on."""
        trainer = self.trainer
        micro_batches = trainer.accumulate_grad_batches if trainer else 1
        world_size = trainer.world_size if trainer else 1
        dataset = self.train_dataset()
        sampler = EpochSampler(
            len(dataset),
            self.batch_size,
            micro_batches=micro_batches,
            seed=self.seed,
            rank=trainer.global_rank if trainer else 0,
            world_size=world_size,
            epoch=self.position.epoch,
            first_batch=self.position.batch,
        )
        return DataLoader(
            dataset,  # pyright: ignore[reportArgumentType] - keys are pairs
            batch_size=sampler.batch_size,
            sampler=sampler,
            drop_last=True,
            **self._loader_options(),
        )

    def val_dataloader(self) -> DataLoader:
        """Load the validation images, each once over all processes."""
        assert self.data.validation_split is not None
        return self._evaluation_loader(self.data.validation_split)

    def test_dataloader(self) -> DataLoader:
        """Load the test images, each once over all processes."""
        return self._evaluation_loader(self.data.test_split)

    def state_dict(self) -> dict[str, Any]:
        """Return the position and the number of training images."""
        return self.position._asdict() | {"images": len(self.train_dataset())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at the position of a checkpoint.

        Raises:
            UserError: The number of training images has changed.
        """
        images = len(self.train_dataset())
        if images != state_dict["images"]:
            raise UserError(
                f"{self.data.source!r} has {images} training images, but had {state_dict['images']} when the "
                "checkpoint was written: restore the data, or start anew in another run folder"
            )
        self.position = Position(state_dict["epoch"], state_dict["batch"])

    def _evaluation_loader(self, split: str) -> DataLoader:
        dataset = self.evaluation_dataset(split)
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return DataLoader(
            dataset,  # pyright: ignore[reportArgumentType]
            batch_size=max(1, self.evaluation_batch_size // world_size),
            sampler=range(rank, len(dataset), world_size),
            **self._loader_options(),
        )

    def _loader_options(self) -> dict[str, Any]:
        return {
            "collate_fn": self.collate,
            "num_workers": self.data.workers,
            "worker_init_fn": shield_worker,
            "persistent_workers": self.data.workers > 0,
            "pin_memory": torch.cuda.is_available(),
            # The loader draws a seed for its workers; by default from the global generator, which must not change.
            "generator": torch.Generator().manual_seed(derive_seed(self.seed)),
        }
