"""The order of the training images: a pure function of the seed and the epoch, for any number of devices."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from halonet.data.randomness import derive_seed


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index) pairs: one rank's part of an epoch, from any batch on.

    An epoch is divided into *global* batches, the images of one optimizer step each. A global batch is divided first
    into micro-batches (gradient accumulation), then among the ranks, so that any number of ranks trains on the same
    images in the same order. Images that do not fill a last global batch are left out of this epoch.

    The epoch is part of the key because persistent workers would not see it change here.

    Args:
        num_images: Size of the data set.
        global_batch_size: Images per optimizer step, over all ranks and micro-batches.
        micro_batches: Micro-batches per optimizer step.
        seed: Seeds the order.
        rank: Which part to yield.
        world_size: Number of parts; `micro_batches * world_size` must divide the global batch.
        epoch: The epoch to begin with.
        first_batch: The micro-batch of that epoch to begin with; later epochs begin with their first.

    Raises:
        ValueError: The global batch cannot be divided, or is larger than the data set.
    """

    def __init__(
        self,
        num_images: int,
        global_batch_size: int,
        *,
        micro_batches: int = 1,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        epoch: int = 0,
        first_batch: int = 0,
    ):
        if global_batch_size % (micro_batches * world_size):
            raise ValueError(
                f"a batch of {global_batch_size} images cannot be split evenly into "
                f"{micro_batches} micro-batches over {world_size} processes."
            )
        if num_images < global_batch_size:
            raise ValueError(
                f"a batch of {global_batch_size} images cannot be filled from {num_images} training images."
            )
        self.num_images = num_images
        self.global_batch_size = global_batch_size
        self.micro_batches = micro_batches
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = epoch
        self.first_batch = first_batch

    @property
    def batch_size(self) -> int:
        """Images in one micro-batch of one rank."""
        return self.global_batch_size // (self.micro_batches * self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch (from 0), unless that epoch has already begun.

        Lightning calls this before each epoch, but in a resumed run only after the first iterator was made.
        """
        if epoch != self.epoch:
            self.epoch, self.first_batch = epoch, 0

    def __len__(self) -> int:
        """Return the images of a full epoch on one rank, wherever this sampler begins."""
        return self.num_images // self.global_batch_size * (self.global_batch_size // self.world_size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield the (epoch, index) pairs of the current epoch, from its first batch on."""
        epoch = self.epoch
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
        order = torch.randperm(self.num_images, generator=generator)
        whole_batches = len(self) // self.batch_size
        order = order[: whole_batches * self.batch_size * self.world_size]
        mine = order.view(whole_batches, self.world_size, self.batch_size)[self.first_batch :, self.rank]
        return ((epoch, int(index)) for index in mine.flatten())
