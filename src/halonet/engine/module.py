"""The LightningModule that all tasks share: reproducible random numbers, metrics that survive interruptions, SGD."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from halonet.data.randomness import derive_seed
from halonet.engine.data import KeyedData, Position
from halonet.engine.device import sum_dtype
from halonet.engine.optimizer_state import accept_joined_projections
from halonet.engine.weights import describe
from halonet.recipes.schema import OptimizerSection

Batch = Sequence[Any]  # inputs and targets, as many targets as images

INTERVAL, EPOCH = 0, 1  # rows of the sums: since the last line of the log, and since the epoch began


def count_images(batch: Batch) -> int:
    """The number of images in a batch."""
    _, targets = batch
    return len(targets)


class TrainingModule(lightning.LightningModule):
    """Trains a network with Nesterov SGD and a learning rate set for each optimizer step.

    Works with a plain `lightning.Trainer`. Under `halonet.training.train` it can be killed at any moment and resumed to
    the same bits, because random numbers are seeded anew for every batch, and the sums behind the training metrics are
    part of the checkpoint.

    Args:
        network: The network to train.
        optimizer: Learning rate, momentum and weight decay. Tensors that the network's `no_weight_decay()` names do not
            count as matrices.
        seed: Seeds everything that is drawn in a step.
    """

    summed: ClassVar[int]
    """How many quantities `add` takes."""
    score: ClassVar[str]
    """The validation metric to choose by; greater is better."""

    def __init__(self, network: nn.Module, optimizer: OptimizerSection, *, seed: int = 0):
        super().__init__()
        self.network = network
        self.optimizer = optimizer
        self.seed = seed
        self.validation_metrics: dict[str, float] = {}
        # Of the quantities and the images. Not a buffer, because EMA would average it.
        self._train_sums = torch.zeros(2, self.summed + 1)
        self._restored_sums: Tensor | None = None

    @abstractmethod
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch, and `add` its sums."""

    @abstractmethod
    def means(self, sums: Tensor) -> dict[str, float]:
        """Compute the training metrics, `loss` among them, from the sums [summed + 1], images last."""

    @abstractmethod
    def factors(self, total_steps: int) -> Callable[[int], float]:
        """Return the function from the optimizer step, from 0, to the learning rate as a fraction of the peak."""

    @abstractmethod
    def describe_metrics(self, metrics: dict[str, float]) -> str:
        """Describe training or validation metrics in a few words of constant width."""

    def on_train_start(self) -> None:
        """Start with the sums of the checkpoint, if there is one."""
        self._train_sums = torch.zeros(2, self.summed + 1, dtype=sum_dtype(self.device), device=self.device)
        if self._restored_sums is not None:
            self._train_sums += self._restored_sums.to(self._train_sums)
            self._restored_sums = None

    def on_train_epoch_start(self) -> None:
        """Forget the previous epoch's sums. Not called again when a run resumes within an epoch."""
        self._train_sums[EPOCH].zero_()
        self.validation_metrics = {}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed the random numbers by the position of the batch, so that no generator state need be kept."""
        torch.manual_seed(derive_seed(self.seed, self.current_epoch, batch_idx, self.global_rank))

    def add(self, sums: Sequence[Tensor], images: int) -> None:
        """Add the sums of a batch.

        Args:
            sums: The quantities, detached, each summed over the batch.
            images: Number of images in the batch.
        """
        self._train_sums += torch.stack([*sums, sums[0].new_full((), images)])

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Record the position in the data."""
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, KeyedData):
            last = batch_idx + 1 == self.trainer.num_training_batches
            data.position = Position(self.current_epoch + 1, 0) if last else Position(self.current_epoch, batch_idx + 1)

    def take_interval(self) -> dict[str, float]:
        """Training metrics over all processes since the last call; every process must call it."""
        metrics = self.means(self.over_processes(self._train_sums[INTERVAL]))
        self._train_sums[INTERVAL].zero_()
        return metrics

    def epoch_metrics(self) -> dict[str, float]:
        """Training metrics over all processes in this epoch; every process must call it."""
        return self.means(self.over_processes(self._train_sums[EPOCH]))

    def local_epoch_metrics(self) -> dict[str, float]:
        """Training metrics of this process in this epoch, for the progress bar."""
        return self.means(self._train_sums[EPOCH])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Set up SGD, and the schedule over the optimizer steps that the Trainer will take."""
        total_steps = int(self.trainer.estimated_stepping_batches)
        optimizer = torch.optim.SGD(
            self._parameter_groups(),
            lr=self.optimizer.learning_rate,
            momentum=self.optimizer.momentum,
            nesterov=self.optimizer.momentum > 0,
        )
        accept_joined_projections(optimizer, self.network)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.factors(total_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add a description of the weights and the sums of all processes."""
        checkpoint["halonet"] = describe(self.network, getattr(self.trainer, "datamodule", None))
        checkpoint["train_sums"] = self.of_processes(self._train_sums).cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take this process's sums; if the number of processes changed, the first takes them all."""
        sums = checkpoint["train_sums"]
        if len(sums) == self.trainer.world_size:
            self._restored_sums = sums[self.global_rank]
        else:
            self._restored_sums = sums.sum(0) if self.global_rank == 0 else None

    def of_processes(self, tensor: Tensor) -> Tensor:
        """Gather a tensor, one row per process."""
        if self.trainer.world_size == 1:
            return tensor[None]
        rows = [torch.empty_like(tensor) for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather(rows, tensor)
        return torch.stack(rows)

    def over_processes(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all processes."""
        return self.of_processes(tensor).sum(0)

    def _parameter_groups(self) -> list[dict[str, Any]]:
        spared = set(getattr(self.network, "no_weight_decay", set)())
        decayed, plain = [], []
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                spare = self.optimizer.decay == "matrices" and (parameter.ndim < 2 or name in spared)
                (plain if spare else decayed).append(parameter)
        groups = [
            {"params": decayed, "weight_decay": self.optimizer.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]
