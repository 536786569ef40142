"""The tasks by name, each imported only when it is needed."""

from typing import NamedTuple

from halonet.errors import UserError


class Entry(NamedTuple):
    """Where to find a task, as names to import.

    Attributes:
        recipe: The class of its recipes.
        task: Its subclass of `Task`.
        command: Trains its recipes.
    """

    recipe: str
    task: str
    command: str


TASKS = {
    "classification": Entry(
        "halonet.classification.recipe:Recipe", "halonet.classification.task:Classification", "halonet train"
    ),
    "detection": Entry(
        "halonet.detection.recipe:DetectionRecipe", "halonet.detection.task:Detection", "halonet detect train"
    ),
}


def require_task(name: str, source: str) -> Entry:
    """Find a task by its name; `source` names the recipe in the message.

    Raises:
        UserError: There is no such task.
    """
    if name not in TASKS:
        raise UserError(f"{source} is a recipe for {name}, which is not a task: choose one of {', '.join(TASKS)}")
    return TASKS[name]
