"""What `halonet train` and `halonet detect train` share: their flags, and what they print."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from halonet.console import printable
from halonet.errors import UserError


def add_training_flags(parser: argparse.ArgumentParser, default_recipe: str) -> None:
    """Add a recipe, a run folder and a run to resume.

    Args:
        parser: Of the command.
        default_recipe: What is trained if none is named.
    """
    parser.add_argument("recipe", nargs="?", default=default_recipe, help="a name from `halonet recipes`, or a file")
    parser.add_argument("--run-dir", type=Path, help="the run folder (default: runs/NAME)")
    parser.add_argument("--resume", type=Path, metavar="RUN_DIR", help="complete the interrupted run in this folder")
    parser.epilog = (
        "Any field of the recipe can be set: --engine.seed 1, --optimizer.learning-rate=0.1, --data.source DIR. "
        "`halonet recipes NAME` prints them all."
    )


def run_training(
    options: argparse.Namespace,
    overrides: list[str],
    *,
    begin: Callable[[str, list[str], Path | None], Path],
    resume: Callable[..., Path],
    describe: Callable[[dict[str, Any]], str],
    has_root: bool = False,
) -> None:
    """Train or resume, then say what was written, in the first of several processes.

    Args:
        options: As `add_training_flags` makes them.
        overrides: Fields of the recipe, with their values.
        begin: Trains a recipe with its overrides into a folder, and returns the folder.
        resume: Completes the run in a folder, and returns the folder.
        describe: Puts a result into a line.
        has_root: Whether recipes have the field `data.root`, which `resume` takes as `root`, beside `source`.

    Raises:
        UserError: If --resume comes with anything else but `--data.root`, or the training fails.
    """
    from halonet.training.engine import is_first_process, read_result

    if options.resume is not None:
        if options.run_dir is not None:
            raise UserError("--resume names the run folder already: leave --run-dir out")
        folder = resume(options.resume, **_changes_on_resume(overrides, has_root))
    else:
        folder = begin(options.recipe, overrides, options.run_dir)
    if not is_first_process():
        return
    print(printable(describe(read_result(folder))))
    print(printable(f"written to {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}"))


def _changes_on_resume(overrides: list[str], has_root: bool) -> dict[str, str]:
    """Take the new place of the data, which alone may change when a run is resumed, and its name, which may not."""
    from halonet.training.recipes import split_overrides

    changes = dict(split_overrides(overrides))
    names = {"data.root": "root", "data.source": "source"} if has_root else {}
    taken = {names[key]: changes.pop(key) for key in names if key in changes}
    for key in changes:
        exception = ", but for data.root" if has_root else ""
        raise UserError(f"--resume takes the recipe of the run as it is{exception}: leave out {key}")
    return taken
