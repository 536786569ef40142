"""One process at work in a run folder: the lock, the signals, and what every message tells to do next."""

import dataclasses
import os
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only

from halonet.engine.checkpoints import differences
from halonet.engine.files import explain_full_disk
from halonet.engine.lock import locked
from halonet.errors import UserError
from halonet.interrupts import Interrupted, Interrupts, interruptible, name_of
from halonet.recipes.load import completed, resolve
from halonet.recipes.schema import RecipeT


def is_first_process() -> bool:
    """Whether this is the process that writes and prints; known before Lightning has started, from the environment."""
    return getattr(rank_zero_only, "rank", 0) == 0


@contextmanager
def session(folder: Path, command: str, advice: str | None = None) -> Iterator[Interrupts]:
    """Lock a run folder, hand signals to the engine, and end every message with how to go on.

    Args:
        folder: The run folder.
        command: What resumes the run with `--resume`.
        advice: How to go on instead; None names that command.

    Yields:
        The handlers of the signals.

    Raises:
        UserError: The folder is in use by another process or cannot be written into, or the body met a full disk.
        Interrupted: A signal ended the body. Of several processes of a run, the first has a message.
    """

    def way_on() -> str:
        if advice is not None:
            return advice
        if not os.path.isfile(folder / "recipe.yaml"):
            return "run the command again"
        return f"continue with {command} --resume {shlex.quote(str(folder))}"

    with (
        interruptible() as interrupts,
        locked(folder) if is_first_process() else nullcontext(),
        explain_full_disk(folder, lambda: f"make room, then {way_on()}"),
    ):
        interrupts.last_words = lambda: advice or f"the last saved state stands, {way_on()}"
        try:
            yield interrupts
        except KeyboardInterrupt as error:
            number = getattr(error, "number", signal.SIGINT)
            message = f"{str(error) or 'interrupted'}: {way_on()}" if is_first_process() else ""
            raise Interrupted(message, number) from None
        except Exception as error:
            if interrupts.number is None or isinstance(error, UserError):
                raise
            # Another process of the run, told to end too, was faster.
            cause = " ".join(str(error).split()) or type(error).__name__
            message = f"stopped by {name_of(interrupts.number)} at the last saved state ({cause}): {way_on()}"
            raise Interrupted(message if is_first_process() else "", interrupts.number) from error
        finally:
            interrupts.last_words = str


def as_begun(recipe: RecipeT, folder: Path) -> RecipeT:
    """Take what a recipe leaves null from the run that a folder holds, if it holds one.

    What follows from the data was chosen when that run began, by a clock among other things.

    Args:
        recipe: Any.
        folder: The run folder.

    Raises:
        UserError: The folder's recipe cannot be read.
    """
    path = folder / "recipe.yaml"
    if not os.path.isfile(path):
        return recipe
    held = resolve(path, task=recipe.task)
    assert isinstance(held, type(recipe))
    return completed(recipe, held)


def require_same_recipe(folder: Path, recipe: Any, command: str) -> None:
    """Refuse to go on with a run of another recipe; the data may have moved, and texts may differ.

    Args:
        folder: The run folder.
        recipe: What it should hold a run of.
        command: What resumes a run with `--resume`.

    Raises:
        UserError: A value differs, or the folder's recipe cannot be read.
    """
    held = resolve(folder / "recipe.yaml", task=recipe.task)
    before, now = (_flatten(dataclasses.asdict(each)) for each in (held, recipe))
    free = ("data.root", "description", "reproduces", "provenance.")
    changes = [change for change in differences(before, now) if not change.startswith(free)]
    if changes:
        raise UserError(
            f"{folder} holds a run of another recipe ({'; '.join(changes)}): continue it as it is with "
            f"{command} --resume {folder}, or choose another folder with --run-dir"
        )


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
