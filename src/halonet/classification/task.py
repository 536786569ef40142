"""The task of classification."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from halonet.classification.data import ClassificationData
from halonet.classification.evaluation import describe_accuracy, evaluate
from halonet.classification.from_data import fill_in
from halonet.classification.module import Classifier
from halonet.classification.recipe import Recipe
from halonet.data.classification.sources import is_named, require_asked_for
from halonet.engine.files import absolute
from halonet.engine.task import Task
from halonet.errors import UserError
from halonet.recipes.schema import replaced
from halonet.recipes.tasks import TASKS

MEASURED = ("top1", "top1_interval", "top5", "loss", "parameters", "images", "classes", "variant")


class Classification(Task[Recipe]):
    """Trains a classifier of images."""

    command = TASKS["classification"].command

    def moved(self, root: str | Path | None, source: str | None, run_dir: str | Path) -> "Classification":
        """Use a named data set in another folder."""
        trained_on = self.recipe.data.source
        require_asked_for(trained_on, source, f"run {run_dir}")
        if source not in (None, trained_on):
            raise UserError(f"run {run_dir} was trained on {trained_on}: it cannot continue with {source}")
        if root is None:
            return self
        return Classification(replaced(self.recipe, "data", root=absolute(str(root))))

    def with_absolute_paths(self) -> "Classification":
        """Make the folder of the data absolute."""
        data = self.recipe.data
        if data.source is None:
            return self
        source = data.source if is_named(data.source) else absolute(data.source)
        root = None if data.root is None else absolute(data.root)
        return Classification(replaced(self.recipe, "data", source=source, root=root))

    def completed(self, say: Callable[[str], None]) -> "Classification":
        """Fill in classes, sizes, batch, rate and epochs from the data."""
        return Classification(fill_in(self.recipe, say=say))

    def data(self) -> ClassificationData:
        """Make the data module; nothing is read yet."""
        return ClassificationData.of(self.recipe)

    def module(self, *, initialized: bool = False) -> Classifier:
        """Make the module, with weights drawn from the recipe's seed."""
        return Classifier.of(self.recipe)

    def measure(self, folder: Path, device: str) -> dict[str, Any]:
        """Measure accuracy and loss on the recipe's test split."""
        data = self.recipe.data
        measured = evaluate(folder, data.source, data.test_split, root=data.root, device=device)
        return {name: measured[name] for name in MEASURED} | {"epochs": self.recipe.schedule.epochs}

    @staticmethod
    def describe(result: dict[str, Any]) -> str:
        """Describe accuracy, loss, time and speed."""
        return (
            f"{describe_accuracy(result)} on {result['images']:,} images of {data_of(result)} "
            f"({result['split']}) after {result['epochs']} epochs, {result['seconds']:.0f} s, "
            f"{result['images_per_second']:.0f} images/s"
        )

    @property
    def guess_loss(self) -> float:
        """The cross-entropy of a uniform guess."""
        return math.log(max(2, self.recipe.model.num_classes))

    @property
    def trainer_options(self) -> dict[str, Any]:
        """The number of epochs."""
        return {"max_epochs": self.recipe.schedule.epochs}


def data_of(result: dict[str, Any]) -> str:
    """Name the data of a result, by its variant if the data set has several."""
    return result.get("variant") or result["data"]
