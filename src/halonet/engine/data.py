"""What the data modules of all tasks share: an order that depends on the seed alone, and the way back into it."""

from abc import abstractmethod
from collections.abc import Callable, Sized
from typing import Any, Protocol, runtime_checkable

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


class KeyedData(lightning.LightningDataModule):
    """Training, validation and test images of one data set.

    Nothing depends on the number of workers. The module knows how far training got, so the training loader of a
    resumed run begins at the next batch. Over several processes, pass `use_distributed_sampler=False` to the Trainer:
    the images are already shared out.

    Args:
        data: The recipe's section of the data: `source`, `validation_split`, `test_split` and `workers` are among its
            fields.
        batch_size: Images per optimizer step, over all processes and accumulated micro-batches.
        seed: Of order and augmentation.
    """

    collate: Callable[[list[Any]], Any] | None = None
    """How items become a batch; None stacks them."""

    def __init__(self, data: Any, *, batch_size: int, seed: int):
        super().__init__()
        self.data = data
        self.batch_size = batch_size
        self.seed = seed
        self.position = (0, 0)
        """The (epoch, micro-batch) that training comes to next."""
        if data.validation_split is None:
            # Lightning asks whether there is such a hook, and does not expect one without a loader.
            self.val_dataloader = None  # pyright: ignore[reportAttributeAccessIssue]

    @property
    @abstractmethod
    def class_names(self) -> list[str]:
        """The class names, by label."""

    @abstractmethod
    def train_dataset(self) -> Keyed:
        """The training items, by (epoch, index)."""

    @abstractmethod
    def evaluation_dataset(self, split: str) -> Keyed:
        """The items of a split, by index."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What a checkpoint must say of the data, as JSON values."""

    @property
    def evaluation_batch_size(self) -> int:
        """Images at a time in validation and test, over all processes."""
        return self.batch_size

    def setup(self, stage: str | None = None) -> None:
        """Open the splits, so that what is wrong with them is said before training.

        Args:
            stage: Lightning's: "fit" opens those of training and validation, "test" that of the test, None all.

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
        """The training batches, beginning at `position`."""
        trainer = self.trainer
        micro_batches = trainer.accumulate_grad_batches if trainer else 1
        world_size = trainer.world_size if trainer else 1
        epoch, first_batch = self.position
        dataset = self.train_dataset()
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
            dataset,  # pyright: ignore[reportArgumentType] - keys are pairs
            batch_size=sampler.batch_size,
            sampler=sampler,
            drop_last=True,
            **self._loader_options(),
        )

    def val_dataloader(self) -> DataLoader:
        """The validation images, each once over all processes."""
        assert self.data.validation_split is not None
        return self._evaluation_loader(self.data.validation_split)

    def test_dataloader(self) -> DataLoader:
        """The test images, each once over all processes."""
        return self._evaluation_loader(self.data.test_split)

    def state_dict(self) -> dict[str, Any]:
        """How far training got, and through how many images."""
        return {"epoch": self.position[0], "batch": self.position[1], "images": len(self.train_dataset())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint was written.

        Args:
            state_dict: As `state_dict()` returned it.

        Raises:
            UserError: The training images are not as many as they were.
        """
        images = len(self.train_dataset())
        if images != state_dict["images"]:
            raise UserError(
                f"{self.data.source!r} has {images} training images, but had {state_dict['images']} when the "
                "checkpoint was written: restore the data, or start anew in another run folder"
            )
        self.position = (state_dict["epoch"], state_dict["batch"])

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
            # A loader draws a base seed for its workers, by default from the global generator.
            "generator": torch.Generator().manual_seed(derive_seed(self.seed)),
        }
