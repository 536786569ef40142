"""The task of detection."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from halonet.data.detection import nuclei
from halonet.detection.data import DetectionData
from halonet.detection.evaluation import KINDS, evaluate
from halonet.detection.from_data import fill_in
from halonet.detection.module import Detector
from halonet.detection.recipe import DetectionRecipe
from halonet.engine.files import absolute
from halonet.engine.task import Task
from halonet.errors import UserError
from halonet.recipes.schema import replaced
from halonet.recipes.tasks import TASKS

# What the engine adds to `result.json` for every task.
OF_THE_RUN = ("images_per_second", "seconds", "checkpoint", "data", "split", "device")


class Detection(Task[DetectionRecipe]):
    """Trains a Mask R-CNN, or a Faster R-CNN where there are no masks."""

    command = TASKS["detection"].command

    def moved(self, root: str | Path | None, source: str | None, run_dir: str | Path) -> "Detection":
        """Refuse: the data of a detector is one folder."""
        trained_on = self.recipe.data.source
        if root is not None or source not in (None, trained_on):
            raise UserError(f"run {run_dir} takes its data from {trained_on}: give neither root nor source")
        return self

    def with_absolute_paths(self) -> "Detection":
        """Make the folder of the data and the file of initial weights absolute."""
        recipe = self.recipe
        if recipe.data.source not in (None, nuclei.NAME):
            recipe = replaced(recipe, "data", source=absolute(recipe.data.source))
        if recipe.model.init is not None:
            recipe = replaced(recipe, "model", init=absolute(recipe.model.init))
        return Detection(recipe)

    def completed(self, say: Callable[[str], None]) -> "Detection":
        """Fill in classes, masks, sizes, batch, rate and steps from the data."""
        return Detection(fill_in(self.recipe, say=say))

    def data(self) -> DetectionData:
        """Make the data module; nothing is read yet."""
        return DetectionData.of(self.recipe)

    def module(self, *, initialized: bool = False) -> Detector:
        """Make the module, with weights drawn from the recipe's seed or read from a file."""
        return Detector.of(self.recipe, initialized=initialized)

    def measure(self, folder: Path, device: str) -> dict[str, Any]:
        """Measure average precision; write the detections and a plot of precision over recall."""
        measured = evaluate(
            folder,
            device=device,
            results_file=folder / "detections.json",
            plot_file=folder / "precision_recall.png",
        )
        return {name: value for name, value in measured.items() if name not in OF_THE_RUN}

    @staticmethod
    def describe(result: dict[str, Any]) -> str:
        """Describe average precision, time and speed."""
        measured = ", ".join(
            f"{kind} AP {describe_value(result[f'{kind}_ap'])} (AP50 {describe_value(result[f'{kind}_ap50'])})"
            for kind in KINDS
            if f"{kind}_ap" in result
        )
        return (
            f"{measured} on {result['data']} ({result['split']}) after {result['steps']} steps, "
            f"{result['seconds']:.0f} s, {result['images_per_second']:.2g} images/s"
        )

    @property
    def guess_loss(self) -> float:
        """The cross-entropies of class, objectness and mask pixels, each of a uniform guess, and 1 for the boxes."""
        recipe = self.recipe
        return math.log(recipe.model.num_classes + 1) + (1 + recipe.draws_masks) * math.log(2) + 1

    @property
    def trainer_options(self) -> dict[str, Any]:
        """The number of steps, and whether batch norm is synchronized."""
        is_synchronized = self.recipe.model.batch_norm == "synchronized"
        return {"max_steps": self.recipe.schedule.steps, "max_epochs": -1, "sync_batchnorm": is_synchronized}

    @property
    def curves(self) -> dict[str, Any]:
        """Draw average precision beside the loss."""
        masks = {"mask_ap": "masks"} if self.recipe.draws_masks else {}
        return {"scores": {"box_ap": "boxes"} | masks, "title": "average precision (%)"}


def describe_value(value: float | None) -> str:
    """Print a percentage, or a dash where there is nothing to measure."""
    return "-" if value is None else f"{value:.1f}"
