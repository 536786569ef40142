"""The LightningModule: one training step, one evaluation step, the optimizer and its schedule."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import lightning
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from halonet.data.randomness import derive_seed
from halonet.training.datamodule import ClassificationData
from halonet.training.metrics import classification_sums, sum_dtype, summarize
from halonet.training.schedule import learning_rate_factor
from halonet.training.weights import describe

Batch = Sequence[Tensor]  # images [batch, channels, height, width], targets [batch]


class Classifier(lightning.LightningModule):
    """Trains any image classifier with Nesterov SGD under a warm-up and a cosine, stepped per optimizer step.

    Works with a plain `lightning.Trainer`. A run under `halonet.training.train` can be killed at any moment
    and resumed to the same bits: dropout and stochastic depth draw from a stream seeded anew for every batch,
    and the sums behind the training metrics are part of the checkpoint.

    Args:
        network: Maps images [batch, channels, height, width] to logits [batch, classes].
        learning_rate: The peak, for the whole batch.
        momentum: Nesterov's.
        weight_decay: L2 penalty.
        decay: `matrices` spares tensors with fewer than two axes (gains and biases) and those that the
            network's `no_weight_decay()` names; `all` spares none. The paper does not say.
        warmup_epochs: Of linear warm-up; may be a fraction.
        final_fraction: Of the peak, used by the last step.
        label_smoothing: Of the training loss; evaluation uses none.
        seed: Of dropout and stochastic depth.

    The progress bar of a plain Trainer shows the loss. Validation logs `validation_loss`, `validation_top1` and
    `validation_top5`, testing the same with `test_`; accuracies are in percent.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        learning_rate: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 2e-5,
        decay: Literal["matrices", "all"] = "matrices",
        warmup_epochs: float = 0.0,
        final_fraction: float = 1 / 128,
        label_smoothing: float = 0.0,
        seed: int = 0,
    ):
        super().__init__()
        self.network = network
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.decay = decay
        self.warmup_epochs = warmup_epochs
        self.final_fraction = final_fraction
        self.label_smoothing = label_smoothing
        self.seed = seed
        self.validation_metrics: dict[str, float] = {}
        # Loss, right at the first guess, images; since `take_interval` and since the epoch began.
        # Neither parameters nor buffers, or EMA would average them.
        self._train_sums = torch.zeros(2, 3)
        self._restored_sums: Tensor | None = None
        self._evaluation_sums = torch.zeros(4)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits.

        Args:
            images: [batch, channels, height, width].

        Returns:
            [batch, classes].
        """
        return self.network(images)

    def on_train_start(self) -> None:
        """Begin with the sums of the checkpoint, or with none."""
        self._train_sums = torch.zeros(2, 3, dtype=sum_dtype(self.device), device=self.device)
        if self._restored_sums is not None:
            self._train_sums += self._restored_sums.to(self._train_sums)
            self._restored_sums = None

    def on_train_epoch_start(self) -> None:
        """Forget the previous epoch's sums. Not called again when a run resumes within an epoch."""
        self._train_sums[1].zero_()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed this batch's random numbers by its place, so that no generator's state need be kept."""
        torch.manual_seed(derive_seed(self.seed, self.current_epoch, batch_idx, self.global_rank))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean smoothed cross-entropy of a batch."""
        images, targets = batch
        logits = self(images)
        loss = F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
        right = (logits.detach().argmax(1) == targets).sum()
        self._train_sums += torch.stack([loss.detach() * len(targets), right, targets.new_full((), len(targets))])
        self.log("loss", loss, prog_bar=True)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Tell the data how far training got."""
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, ClassificationData):
            last = batch_idx + 1 == self.trainer.num_training_batches
            data.position = (self.current_epoch + 1, 0) if last else (self.current_epoch, batch_idx + 1)

    def take_interval(self) -> dict[str, float]:
        """Training metrics over all processes since the last call, which every process must make.

        Returns:
            `loss`, the smoothed one that is minimized, and `top1`, in percent.
        """
        metrics = _means(self._over_processes(self._train_sums[0]))
        self._train_sums[0].zero_()
        return metrics

    def epoch_metrics(self) -> dict[str, float]:
        """Training metrics over all processes since the epoch began; every process must call it.

        Returns:
            `loss`, the smoothed one that is minimized, and `top1`, in percent.
        """
        return _means(self._over_processes(self._train_sums[1]))

    def local_epoch_metrics(self) -> dict[str, float]:
        """Training metrics of this process alone since the epoch began, for a progress bar.

        Returns:
            `loss`, the smoothed one that is minimized, and `top1`, in percent.
        """
        return _means(self._train_sums[1])

    def on_validation_epoch_start(self) -> None:
        """Begin to sum."""
        self._evaluation_sums = torch.zeros(4, dtype=sum_dtype(self.device), device=self.device)

    def on_test_epoch_start(self) -> None:
        """Begin to sum."""
        self.on_validation_epoch_start()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the sums."""
        images, targets = batch
        self._evaluation_sums += classification_sums(self(images), targets)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the sums."""
        self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log what the validation gave."""
        self.validation_metrics = summarize(self._over_processes(self._evaluation_sums))
        self.log_dict({f"validation_{name}": value for name, value in self.validation_metrics.items()}, sync_dist=True)

    def on_test_epoch_end(self) -> None:
        """Log what the test gave."""
        metrics = summarize(self._over_processes(self._evaluation_sums))
        self.log_dict({f"test_{name}": value for name, value in metrics.items()}, sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Nesterov SGD, and the schedule over as many optimizer steps as the Trainer will take."""
        total_steps = int(self.trainer.estimated_stepping_batches)
        steps_per_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        factor = self._schedule(round(self.warmup_epochs * steps_per_epoch), total_steps)
        optimizer = torch.optim.SGD(
            self._parameter_groups(), lr=self.learning_rate, momentum=self.momentum, nesterov=self.momentum > 0
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the weights belong to, and every process's sums."""
        checkpoint["halonet"] = describe(self.network, getattr(self.trainer, "datamodule", None))
        checkpoint["train_sums"] = self._of_processes(self._train_sums).cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take this process's sums; with another number of processes the first takes them all."""
        sums = checkpoint["train_sums"]
        if len(sums) == self.trainer.world_size:
            self._restored_sums = sums[self.global_rank]
        else:
            self._restored_sums = sums.sum(0) if self.global_rank == 0 else None

    def _schedule(self, warmup_steps: int, total_steps: int) -> Callable[[int], float]:
        return lambda step: learning_rate_factor(step, warmup_steps, total_steps, self.final_fraction)

    def _parameter_groups(self) -> list[dict[str, Any]]:
        spared = set(getattr(self.network, "no_weight_decay", set)())
        decayed, plain = [], []
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                spare = self.decay == "matrices" and (parameter.ndim < 2 or name in spared)
                (plain if spare else decayed).append(parameter)
        groups = [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]

    def _of_processes(self, tensor: Tensor) -> Tensor:
        """One row per process."""
        if self.trainer.world_size == 1:
            return tensor[None]
        rows = [torch.empty_like(tensor) for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather(rows, tensor)
        return torch.stack(rows)

    def _over_processes(self, tensor: Tensor) -> Tensor:
        return self._of_processes(tensor).sum(0)


def _means(sums: Tensor) -> dict[str, float]:
    loss, right, images = sums.tolist()
    return {"loss": loss / images, "top1": 100 * right / images}
