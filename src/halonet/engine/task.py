"""The interface between the engine and a task: its data, its module, its measurement."""

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Generic

from halonet.engine.data import KeyedData
from halonet.engine.module import TrainingModule
from halonet.recipes.schema import AnyRecipe, RecipeT
from halonet.recipes.tasks import TASKS


class Task(ABC, Generic[RecipeT]):
    """A recipe, with everything that the engine needs to run it.

    Args:
        recipe: What to train.
    """

    command: ClassVar[str]
    """What resumes a run with `--resume`, such as "halonet train"."""

    def __init__(self, recipe: RecipeT):
        self.recipe = recipe

    @abstractmethod
    def moved(self, root: str | Path | None, source: str | None, run_dir: str | Path) -> "Task[RecipeT]":
        """Use data in another place, when a run is resumed.

        Args:
            root: Where a named data set is now; None leaves it where it was.
            source: The data set as named by the user; None if it was not named.
            run_dir: The run folder, for messages.

        Raises:
            UserError: `source` names other data, or the data would have to be downloaded and `source` is None.
        """

    @abstractmethod
    def with_absolute_paths(self) -> "Task[RecipeT]":
        """Make the paths in the recipe absolute, so that a run can be resumed from any working directory."""

    @abstractmethod
    def completed(self, say: Callable[[str], None]) -> "Task[RecipeT]":
        """Fill in the values that the recipe leaves null from the data.

        Args:
            say: Called with each line about what was found and chosen.

        Raises:
            UserError: The data cannot be read.
        """

    @abstractmethod
    def data(self) -> KeyedData:
        """Make the data module; nothing is read yet."""

    @abstractmethod
    def module(self, *, initialized: bool = False) -> TrainingModule:
        """Make the training module, whose weights are drawn from the recipe's seed.

        Args:
            initialized: Whether a checkpoint will be loaded, so that files of initial weights need not be read.
        """

    @abstractmethod
    def measure(self, folder: Path, device: str) -> dict[str, Any]:
        """Measure the finished run in a folder; return the task's own fields of `result.json`.

        Args:
            folder: The run folder, into which files may be written.
            device: "cpu" or "auto".
        """

    @staticmethod
    @abstractmethod
    def describe(result: dict[str, Any]) -> str:
        """Describe a result, as `read_result` returns it, in one line."""

    @property
    @abstractmethod
    def guess_loss(self) -> float:
        """The loss of a uniform guess, see `Divergence`."""

    @property
    @abstractmethod
    def trainer_options(self) -> dict[str, Any]:
        """Arguments of Lightning's Trainer: `max_epochs` or `max_steps`, and more."""

    @property
    def curves(self) -> dict[str, Any]:
        """Arguments of `draw_curves`."""
        return {}


def task_for(recipe: AnyRecipe) -> Task:
    """Make the task of a recipe: `Classification` or `Detection`, by the table in `recipes/tasks.py`."""
    return pkgutil.resolve_name(TASKS[recipe.task].task)(recipe)
