"""The LightningDataModule: an image data set in an order, and with augmentations, that depend on the seed alone."""

from collections.abc import Sequence
from typing import Any

import lightning
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from halonet.data import AugmentationConfig, ImageSource, KeyedDataset, build_transform, load_source
from halonet.data.randomness import derive_seed
from halonet.errors import UserError
from halonet.training.sampler import EpochSampler

_HELD_OUT_SEED = 0  # the same images are held out whatever the seed of a run, so that runs compare


class ClassificationData(lightning.LightningDataModule):
    """Training, validation and test images of a named data set or a folder.

    Nothing depends on the number of workers. The module knows how far training got, so the training loader of a
    resumed run begins at the next batch. Over several processes, pass `use_distributed_sampler=False` to the Trainer:
    the images are already shared out.

    Args:
        data: A named data set or a folder, as `halonet.data.load_source` takes it.
        augmentation: Image size, channels, normalization and the training augmentations.
        batch_size: Images per optimizer step, over all processes and accumulated micro-batches.
        held_out: This many training images, drawn at random (the same whatever the seed), are kept from training and
            validated on after each epoch; with 0 there is no validation.
        test_split: The split of `data` that the test takes.
        workers: Processes that load images; 0 loads in this one.
        seed: Of order and augmentation.
    """

    def __init__(
        self,
        data: str = "fashion_mnist",
        augmentation: AugmentationConfig | None = None,
        *,
        batch_size: int = 128,
        held_out: int = 0,
        test_split: str = "test",
        workers: int = 0,
        seed: int = 0,
    ):
        super().__init__()
        self.data = data
        self.augmentation = augmentation or AugmentationConfig()
        self.batch_size = batch_size
        self.held_out = held_out
        self.test_split = test_split
        self.workers = workers
        self.seed = seed
        self.position = (0, 0)
        """The (epoch, micro-batch) that training comes to next."""
        self._sources: dict[str, ImageSource] = {}

    @property
    def class_names(self) -> list[str]:
        """The class names, by label."""
        return self._source("train").class_names

    def setup(self, stage: str | None = None) -> None:
        """Read the lists of images; the loaders would do it too, but errors are better early.

        Args:
            stage: Lightning's; "fit" needs the training split, "test" the test split.

        Raises:
            UserError: The data is missing or empty, or its images are too few for the batch or for `held_out`.
        """
        if stage == "test":
            self._source(self.test_split)
            return
        available = len(self._source("train"))
        if self.held_out + self.batch_size > available:
            raise UserError(
                f"{self.data!r} has {available} training images: too few to hold {self.held_out} out "
                f"(data.held_out) and still fill a batch of {self.batch_size} (optimizer.batch_size)."
            )

    def train_dataloader(self) -> DataLoader:
        """The training batches, beginning at `position`."""
        trainer = self.trainer
        micro_batches = trainer.accumulate_grad_batches if trainer else 1
        world_size = trainer.world_size if trainer else 1
        epoch, first_batch = self.position
        dataset = KeyedDataset(
            self._part(training=True), build_transform(self.augmentation, train=True), self.seed, train=True
        )
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

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """The images held out from training, each once over all processes; no loader if there are none."""
        return self._evaluation_loader(self._part(training=False)) if self.held_out else []

    def test_dataloader(self) -> DataLoader:
        """The test images, each once over all processes."""
        return self._evaluation_loader(self._source(self.test_split))

    def state_dict(self) -> dict[str, Any]:
        """How far training got."""
        return {"epoch": self.position[0], "batch": self.position[1]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint was written."""
        self.position = (state_dict["epoch"], state_dict["batch"])

    def _source(self, split: str) -> ImageSource:
        if split not in self._sources:
            self._sources[split] = load_source(self.data, split)
        return self._sources[split]

    def _part(self, training: bool) -> ImageSource:
        """The training split without the images held out, or those."""
        source = self._source("train")
        order = torch.randperm(len(source), generator=torch.Generator().manual_seed(_HELD_OUT_SEED)).tolist()
        indices = order[self.held_out :] if training else order[: self.held_out]
        return _Part(source, sorted(indices))

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


class _Part(ImageSource):
    """Some of the images of a source."""

    def __init__(self, source: ImageSource, indices: Sequence[int]):
        self.source = source
        self.indices = indices

    @property
    def class_names(self) -> list[str]:
        return self.source.class_names

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.source[self.indices[index]]
