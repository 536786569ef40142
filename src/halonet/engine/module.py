"""The LightningModule that all tasks share: seeds by place, sums that survive interruptions, SGD under a schedule."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from halonet.data.randomness import derive_seed
from halonet.engine.data import KeyedData
from halonet.engine.device import sum_dtype
from halonet.engine.optimizer_state import accept_joined_projections
from halonet.engine.weights import describe
from halonet.recipes.schema import OptimizerSection

Batch = Sequence[Any]  # what the network takes, and targets, of which there are as many as images


class TrainingModule(lightning.LightningModule):
    """Trains a network with Nesterov SGD, stepped per optimizer step.

    Works with a plain `lightning.Trainer`. A run under `halonet.training.train` can be killed at any moment and resumed
    to the same bits: whatever draws random numbers draws from a stream seeded anew for every batch, and the sums behind
    the training metrics are part of the checkpoint.

    Args:
        network: What is trained.
        optimizer: Learning rate, momentum and weight decay. Tensors that the network's `no_weight_decay()` names count
            as no matrices.
        seed: Of whatever is drawn in a step.
    """

    summed: ClassVar[int]
    """How many quantities `add` takes."""
    score: ClassVar[str]
    """The validation metric that is the better the greater it is."""

    def __init__(self, network: nn.Module, optimizer: OptimizerSection, *, seed: int = 0):
        super().__init__()
        self.network = network
        self.optimizer = optimizer
        self.seed = seed
        self.validation_metrics: dict[str, float] = {}
        # The summed quantities and the images; since `take_interval` and since the epoch began.
        # Neither parameters nor buffers, or EMA would average them.
        self._train_sums = torch.zeros(2, self.summed + 1)
        self._restored_sums: Tensor | None = None

    @abstractmethod
    def means(self, sums: Tensor) -> dict[str, float]:
        """Turn the sums [summed + 1], images last, into training metrics; `loss` is among them."""

    @abstractmethod
    def factors(self, total_steps: int) -> Callable[[int], float]:
        """Give the function from an optimizer step, from 0, to the learning rate as a fraction of the peak."""

    @abstractmethod
    def describe_metrics(self, metrics: dict[str, float]) -> str:
        """Put training or validation metrics into a few words, the same number of letters each time."""

    def on_train_start(self) -> None:
        """Begin with the sums of the checkpoint, or with none."""
        self._train_sums = torch.zeros(2, self.summed + 1, dtype=sum_dtype(self.device), device=self.device)
        if self._restored_sums is not None:
            self._train_sums += self._restored_sums.to(self._train_sums)
            self._restored_sums = None

    def on_train_epoch_start(self) -> None:
        """Forget the previous epoch's sums. Not called again when a run resumes within an epoch."""
        self._train_sums[1].zero_()
        self.validation_metrics = {}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed this batch's random numbers by its place, so that no generator's state need be kept."""
        torch.manual_seed(derive_seed(self.seed, self.current_epoch, batch_idx, self.global_rank))

    def add(self, sums: Sequence[Tensor], images: int) -> None:
        """Add what a batch gave.

        Args:
            sums: The quantities, detached, each summed over the batch.
            images: In the batch.
        """
        self._train_sums += torch.stack([*sums, sums[0].new_full((), images)])

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Tell the data how far training got."""
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, KeyedData):
            last = batch_idx + 1 == self.trainer.num_training_batches
            data.position = (self.current_epoch + 1, 0) if last else (self.current_epoch, batch_idx + 1)

    def take_interval(self) -> dict[str, float]:
        """Training metrics over all processes since the last call, which every process must make."""
        metrics = self.means(self.over_processes(self._train_sums[0]))
        self._train_sums[0].zero_()
        return metrics

    def epoch_metrics(self) -> dict[str, float]:
        """Training metrics over all processes since the epoch began; every process must call it."""
        return self.means(self.over_processes(self._train_sums[1]))

    def local_epoch_metrics(self) -> dict[str, float]:
        """Training metrics of this process alone since the epoch began, for a progress bar."""
        return self.means(self._train_sums[1])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Nesterov SGD, and the schedule over as many optimizer steps as the Trainer will take."""
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
        """Add what the weights belong to, and every process's sums."""
        checkpoint["halonet"] = describe(self.network, getattr(self.trainer, "datamodule", None))
        checkpoint["train_sums"] = self.of_processes(self._train_sums).cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take this process's sums; with another number of processes the first takes them all."""
        sums = checkpoint["train_sums"]
        if len(sums) == self.trainer.world_size:
            self._restored_sums = sums[self.global_rank]
        else:
            self._restored_sums = sums.sum(0) if self.global_rank == 0 else None

    def of_processes(self, tensor: Tensor) -> Tensor:
        """One row per process."""
        if self.trainer.world_size == 1:
            return tensor[None]
        rows = [torch.empty_like(tensor) for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather(rows, tensor)
        return torch.stack(rows)

    def over_processes(self, tensor: Tensor) -> Tensor:
        """The sum over all processes."""
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
