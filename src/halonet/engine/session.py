"""One process at work in a run folder: the lock, the signals, and advice in every message on how to continue."""

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
from halonet.engine.files import explain_full_disk, silence_full_disk_in_threads
from halonet.engine.lock import locked
from halonet.errors import UserError
from halonet.interrupts import Interrupted, Interrupts, interruptible, name_of
from halonet.recipes.load import completed, resolve
from halonet.recipes.schema import RecipeT


def is_first_process() -> bool:
    """Whether this process writes and prints; known from the environment before Lightning has started."""
    return getattr(rank_zero_only, "rank", 0) == 0


@contextmanager
def session(folder: Path, command: str, advice: str | None = None) -> Iterator[Interrupts]:
    """Lock a run folder, yield the signal handlers, and end every message with advice on how to continue.

    Args:
        folder: The run folder.
        command: The command that resumes the run with `--resume`.
        advice: How to continue instead; by default with that command.

    Raises:
        UserError: The folder is in use by another process or cannot be written to, or the disk is full.
        Interrupted: A signal ended the body. Of several processes in a run, only the first has a message.
    """

    def how_to_continue() -> str:
        if advice is not None:
            return advice
        if not os.path.isfile(folder / "recipe.yaml"):
            return "run the command again"
        return f"continue with {command} --resume {shlex.quote(str(folder))}"

    with (
        interruptible() as interrupts,
        locked(folder) if is_first_process() else nullcontext(),
        explain_full_disk(folder, lambda: f"make room, then {how_to_continue()}"),
        silence_full_disk_in_threads(),
    ):
        interrupts.last_words = lambda: advice or f"the last saved state stands, {how_to_continue()}"
        try:
            yield interrupts
        except KeyboardInterrupt as error:
            number = getattr(error, "number", signal.SIGINT)
            message = f"{str(error) or 'interrupted'}: {how_to_continue()}" if is_first_process() else ""
            raise Interrupted(message, number) from None
        except Exception as error:
            if interrupts.number is None or isinstance(error, UserError):
                raise
            # Another process of the run also received the signal, and ended first.
            cause = " ".join(str(error).split()) or type(error).__name__
            message = f"stopped by {name_of(interrupts.number)} at the last saved state ({cause}): {how_to_continue()}"
            raise Interrupted(message if is_first_process() else "", interrupts.number) from error
        finally:
            interrupts.last_words = str


def as_begun(recipe: RecipeT, folder: Path) -> RecipeT:
    """Take the values that a recipe leaves null from the run in a folder, if there is one.

    These were chosen when that run began, partly by timing, so they could be chosen differently now.

    Raises:
        UserError: The recipe in the folder cannot be read.
    """
    path = folder / "recipe.yaml"
    if not os.path.isfile(path):
        return recipe
    held = resolve(path, task=recipe.task)
    assert isinstance(held, type(recipe))
    return completed(recipe, held)


def require_same_recipe(folder: Path, recipe: Any, command: str) -> None:
    """Refuse to continue a run with another recipe; the folder of the data and descriptions may differ.

    Raises:
        UserError: A value differs, or the recipe in the folder cannot be read.
    """
    held = resolve(folder / "recipe.yaml", task=recipe.task)
    before, now = (_flatten(dataclasses.asdict(each)) for each in (held, recipe))
    may_differ = ("data.root", "description", "reproduces", "provenance.")
    changes = [change for change in differences(before, now) if not change.startswith(may_differ)]
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
