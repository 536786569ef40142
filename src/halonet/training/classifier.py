"""The LightningModule of classification: one training step, one evaluation step."""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from halonet.training.metrics import classification_sums, sum_dtype, summarize
from halonet.training.schedule import learning_rate_factor
from halonet.training.task import Batch, Task


class Classifier(Task):
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

    The progress bar of a plain Trainer shows the loss. Training metrics are `loss`, the smoothed one that is
    minimized, and `top1`. Validation logs `validation_loss`, `validation_top1` and `validation_top5`, testing the same
    with `test_`; accuracies are in percent.
    """

    summed = 2  # loss, right at the first guess
    score = "top1"

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
        super().__init__(
            network, learning_rate=learning_rate, momentum=momentum, weight_decay=weight_decay, decay=decay, seed=seed
        )
        self.warmup_epochs = warmup_epochs
        self.final_fraction = final_fraction
        self.label_smoothing = label_smoothing
        self._evaluation_sums = torch.zeros(4)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits.

        Args:
            images: [batch, channels, height, width].

        Returns:
            [batch, classes].
        """
        return self.network(images)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean smoothed cross-entropy of a batch."""
        images, targets = batch
        logits = self(images)
        loss = F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
        right = (logits.detach().argmax(1) == targets).sum()
        self.add([loss.detach() * len(targets), right], len(targets))
        self.log("loss", loss, prog_bar=True)
        return loss

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
        self.validation_metrics = summarize(self.over_processes(self._evaluation_sums))
        self.log_dict({f"validation_{name}": value for name, value in self.validation_metrics.items()}, sync_dist=True)

    def on_test_epoch_end(self) -> None:
        """Log what the test gave."""
        metrics = summarize(self.over_processes(self._evaluation_sums))
        self.log_dict({f"test_{name}": value for name, value in metrics.items()}, sync_dist=True)

    def means(self, sums: Tensor) -> dict[str, float]:
        """Training metrics from the sums of loss, images right at the first guess, and images."""
        loss, right, images = sums.tolist()
        return {"loss": loss / images, "top1": 100 * right / images}

    def factors(self, total_steps: int) -> Callable[[int], float]:
        """A linear warm-up, then a cosine."""
        steps_per_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        warmup_steps = round(self.warmup_epochs * steps_per_epoch)
        return lambda step: learning_rate_factor(step, warmup_steps, total_steps, self.final_fraction)

    def describe_metrics(self, metrics: dict[str, float]) -> str:
        """Loss and accuracy."""
        return f"loss {metrics['loss']:.4f} top-1 {metrics['top1']:5.2f} %"
