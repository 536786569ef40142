"""The LightningModule of classification."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import halonet
from halonet.classification.metrics import classification_sums, summarize
from halonet.classification.recipe import Recipe, RegularizationSection, ScheduleSection
from halonet.classification.schedule import learning_rate_factor
from halonet.data import derive_seed
from halonet.engine.device import sum_dtype
from halonet.engine.module import Batch, TrainingModule
from halonet.recipes.schema import OptimizerSection


class Classifier(TrainingModule):
    """Trains any image classifier with Nesterov SGD under a warm-up and a cosine, set for each optimizer step.

    The progress bar of a plain Trainer shows the loss. Training metrics are `loss` (with smoothed labels) and `top1`.
    Validation logs `validation_loss`, `validation_top1` and `validation_top5`, testing logs the same as `test_...`;
    accuracies are in percent.

    Args:
        network: Maps images [batch, channels, height, width] to logits [batch, classes].
        optimizer: Learning rate, momentum and weight decay.
        schedule: The learning rate over the run; the Trainer sets the number of epochs.
        regularization: Smooths the labels of the training loss; evaluation does not.
        seed: Seeds dropout and stochastic depth.
    """

    summed = 2  # loss, top-1 hits
    score = "top1"

    def __init__(
        self,
        network: nn.Module,
        optimizer: OptimizerSection,
        schedule: ScheduleSection,
        *,
        regularization: RegularizationSection = RegularizationSection(),  # noqa: B008 - frozen
        seed: int = 0,
    ):
        super().__init__(network, optimizer, seed=seed)
        self.schedule = schedule
        self.regularization = regularization
        self._evaluation_sums = torch.zeros(4)

    @classmethod
    def of(cls, recipe: Recipe) -> "Classifier":
        """Make the module of a recipe, with weights drawn from the recipe's seed.

        Raises:
            UserError: The recipe is incomplete.
        """
        recipe.require_complete()
        model = recipe.model
        torch.manual_seed(derive_seed(recipe.engine.seed))
        network = halonet.create_model(
            model.name,
            num_classes=model.num_classes,
            in_chans=model.in_chans,
            drop_rate=model.drop_rate,
            drop_path_rate=model.drop_path_rate,
            **model.overrides,
        )
        return cls(
            network,
            recipe.optimizer,
            recipe.schedule,
            regularization=recipe.regularization,
            seed=recipe.engine.seed,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images [batch, channels, height, width] to logits [batch, classes]."""
        return self.network(images)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the mean smoothed cross-entropy of a batch."""
        images, targets = batch
        logits = self(images)
        loss = F.cross_entropy(logits, targets, label_smoothing=self.regularization.label_smoothing)
        right = (logits.detach().argmax(1) == targets).sum()
        self.add([loss.detach() * len(targets), right], len(targets))
        self.log("loss", loss, prog_bar=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Reset the sums."""
        self._evaluation_sums = torch.zeros(4, dtype=sum_dtype(self.device), device=self.device)

    def on_test_epoch_start(self) -> None:
        """Reset the sums."""
        self.on_validation_epoch_start()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the sums."""
        images, targets = batch
        self._evaluation_sums += classification_sums(self(images), targets)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the sums."""
        self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self.validation_metrics = summarize(self.over_processes(self._evaluation_sums))
        self.log_dict({f"validation_{name}": value for name, value in self.validation_metrics.items()}, sync_dist=True)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        metrics = summarize(self.over_processes(self._evaluation_sums))
        self.log_dict({f"test_{name}": value for name, value in metrics.items()}, sync_dist=True)

    def means(self, sums: Tensor) -> dict[str, float]:
        """Compute the training metrics from the sums of loss, top-1 hits and images."""
        loss, right, images = sums.tolist()
        return {"loss": loss / images, "top1": 100 * right / images}

    def factors(self, total_steps: int) -> Callable[[int], float]:
        """A linear warm-up, then a cosine."""
        steps_per_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        warmup_steps = round(self.schedule.warmup_epochs * steps_per_epoch)
        return lambda step: learning_rate_factor(step, warmup_steps, total_steps, self.schedule.final_fraction)

    def describe_metrics(self, metrics: dict[str, float]) -> str:
        """Loss and accuracy."""
        return f"loss {metrics['loss']:.4f} top-1 {metrics['top1']:5.2f} %"
