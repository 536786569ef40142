"""The LightningModule of detection."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from halonet.data import derive_seed
from halonet.detection.average_precision import average_precision
from halonet.detection.checkpoint import initialize
from halonet.detection.data import DetectionData
from halonet.detection.evaluation import KINDS
from halonet.detection.mask_rcnn import FasterRCNN
from halonet.detection.recipe import DetectionRecipe, StepSchedule
from halonet.detection.results import to_results
from halonet.engine.module import Batch, TrainingModule
from halonet.recipes.schema import OptimizerSection

BOX_LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")
LOSSES = (*BOX_LOSSES, "loss_mask")
TARGETS = ("boxes", "labels", "masks")
VALIDATED = ("ap", "ap50")


class Detector(TrainingModule):
    """Trains a Mask R-CNN with Nesterov SGD under a schedule of steps; needs a `DetectionData`.

    Training metrics are `loss` and its five parts, as torchvision names them. Validation logs `validation_box_ap`,
    `validation_box_ap50`, `validation_mask_ap` and `validation_mask_ap50`, in percent.

    Args:
        network: The detector.
        optimizer: Learning rate, momentum and weight decay.
        schedule: The learning rate over the run; the Trainer sets the number of steps.
        seed: Seeds the samples of anchors and boxes.
    """

    losses: ClassVar[tuple[str, ...]] = LOSSES
    kinds: ClassVar[tuple[str, ...]] = ("box", "mask")
    summed = 1 + len(LOSSES)
    score = "mask_ap"

    def __init__(self, network: FasterRCNN, optimizer: OptimizerSection, schedule: StepSchedule, *, seed: int = 0):
        super().__init__(network, optimizer, seed=seed)
        self.schedule = schedule
        self._results: list[dict[str, Any]] = []

    @staticmethod
    def of(recipe: DetectionRecipe, *, initialized: bool = False) -> "Detector":
        """Make the module of a recipe, with weights drawn from the recipe's seed or read from a file.

        Args:
            recipe: A complete recipe.
            initialized: Whether a checkpoint will be loaded, so that the recipe's initial weights need not be read.

        Raises:
            UserError: The recipe is incomplete, or the initial weights cannot be read or do not fit.
        """
        recipe.require_complete()
        torch.manual_seed(derive_seed(recipe.engine.seed))
        network = recipe.model.build(recipe.data.augmentation)
        if recipe.model.init is not None and not initialized:
            initialize(network, recipe.model.init)
        kind = Detector if recipe.draws_masks else BoxDetector
        return kind(network, recipe.optimizer, recipe.schedule, seed=recipe.engine.seed)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Sum the losses of proposals, boxes and masks, each a mean over the batch."""
        images, targets = batch
        losses = self.network(
            images, [{name: target[name] for name in TARGETS if name in target} for target in targets]
        )
        parts = [losses[name] for name in self.losses]
        loss = torch.stack(parts).sum()
        self.add([len(images) * each.detach() for each in (loss, *parts)], len(images))
        self.log("loss", loss, prog_bar=True, batch_size=len(images))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the previous detections."""
        self._results = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the detections of a batch."""
        images, targets = batch
        category_ids = self._data.evaluation_source(self._split).category_ids
        for image, detection, target in zip(images, self._network.detect(images), targets, strict=True):
            self._results += to_results(detection, target["image_id"], category_ids, size=image.shape[-2:])

    def on_validation_epoch_end(self) -> None:
        """Log the average precision over all processes."""
        ground_truth = self._data.evaluation_source(self._split).ground_truth
        results = self._of_all_processes()
        metrics = {}
        for name in self.kinds:
            summary = average_precision(ground_truth, results, KINDS[name], evaluator="faster-coco-eval").summary
            metrics |= {f"{name}_{key}": 100 * (summary[key] or 0.0) for key in VALIDATED}
        self.validation_metrics = metrics
        self.log_dict({f"validation_{name}": value for name, value in metrics.items()}, sync_dist=True, batch_size=1)

    def means(self, sums: Tensor) -> dict[str, float]:
        """Compute the training metrics from the sums of losses and images."""
        *losses, images = sums.tolist()
        return {name: loss / images for name, loss in zip(("loss", *self.losses), losses, strict=True)}

    def factors(self, total_steps: int) -> Callable[[int], float]:
        """The step schedule."""
        return lambda step: self.schedule.factor(step)  # a function, which LambdaLR leaves out of checkpoints

    def describe_metrics(self, metrics: dict[str, float]) -> str:
        """The loss, or the average precision."""
        if "loss" in metrics:
            return f"loss {metrics['loss']:.4f}"
        return " ".join(f"{kind} AP {metrics[f'{kind}_ap']:5.2f}" for kind in self.kinds) + " %"

    @property
    def _network(self) -> FasterRCNN:
        assert isinstance(self.network, FasterRCNN)
        return self.network

    @property
    def _data(self) -> DetectionData:
        data = getattr(self.trainer, "datamodule", None)
        assert isinstance(data, DetectionData)
        return data

    @property
    def _split(self) -> str:
        assert self._data.data.validation_split is not None
        return self._data.data.validation_split

    def _of_all_processes(self) -> list[dict[str, Any]]:
        if self.trainer.world_size == 1:
            return self._results
        shares: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(shares, self._results)
        return sorted((result for share in shares for result in share), key=lambda result: result["image_id"])


class BoxDetector(Detector):
    """Trains a Faster R-CNN in the same way, without the loss and average precision of masks."""

    losses = BOX_LOSSES
    kinds = ("box",)
    summed = 1 + len(BOX_LOSSES)
    score = "box_ap"
