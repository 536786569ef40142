"""What the engine needs to know of a task: an object of a recipe, with its data, its module and its measurement."""

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic

from halonet.recipes.schema import AnyRecipe, RecipeT
from halonet.recipes.tasks import TASKS

if TYPE_CHECKING:
    from halonet.engine.data import KeyedData
    from halonet.engine.module import TrainingModule


class Task(ABC, Generic[RecipeT]):
    """A recipe, and how to do what it describes.

    Args:
        recipe: What to do.
    """

    command: ClassVar[str]
    """What resumes a run with `--resume`, such as "halonet train"."""

    def __init__(self, recipe: RecipeT):
        self.recipe = recipe

    @abstractmethod
    def moved(self, root: str | Path | None, source: str | None, run_dir: str | Path) -> "Task[RecipeT]":
        """Take the data from where it lies when a run is resumed.

        Args:
            root: The folder that a named data set lies in now; None leaves it.
            source: The data as the user names it; None if they do not.
            run_dir: The run folder, for messages.

        Raises:
            UserError: The data would have to be fetched and the user did not name it, or named other data.
        """

    @abstractmethod
    def with_absolute_paths(self) -> "Task[RecipeT]":
        """Name files and folders so that a run can be resumed from any working directory."""

    @abstractmethod
    def completed(self, say: Callable[[str], None]) -> "Task[RecipeT]":
        """Let what the recipe leaves null follow from the data.

        Args:
            say: Takes what was found and chosen, line by line.

        Raises:
            UserError: The data cannot be read.
        """

    @abstractmethod
    def data(self) -> "KeyedData":
        """Make the data module; nothing is read yet."""

    @abstractmethod
    def module(self, *, initialized: bool = False) -> "TrainingModule":
        """Make the network, with weights drawn from the recipe's seed, and what trains it.

        Args:
            initialized: Whether a checkpoint will be loaded, so that files of initial weights need not be read.
        """

    @abstractmethod
    def measure(self, folder: Path, device: str) -> dict[str, Any]:
        """Measure the finished run in a folder.

        Args:
            folder: The run folder; what is measured may be drawn into it.
            device: "cpu" or "auto".

        Returns:
            The fields of `result.json` that are the task's own.
        """

    @staticmethod
    @abstractmethod
    def describe(result: dict[str, Any]) -> str:
        """Put a result, as `read_result` returns it, into a line."""

    @property
    @abstractmethod
    def guess_loss(self) -> float:
        """The loss of a uniform guess, see `Divergence`."""

    @property
    @abstractmethod
    def trainer_options(self) -> dict[str, Any]:
        """What Lightning's Trainer is to know: `max_epochs` or `max_steps`, and more."""

    @property
    def curves(self) -> dict[str, Any]:
        """How `draw_curves` draws the log."""
        return {}


def task_for(recipe: AnyRecipe) -> Task:
    """Make the task of a recipe."""
    return pkgutil.resolve_name(TASKS[recipe.task].task)(recipe)
