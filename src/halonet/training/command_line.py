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
    parser.set_defaults(default_recipe=default_recipe)
    parser.add_argument(
        "recipe", nargs="?", help=f"a name from `halonet recipes`, or a file (default: {default_recipe})"
    )
    parser.add_argument("--run-dir", type=Path, help="the run folder (default: runs/NAME)")
    parser.add_argument("--resume", type=Path, metavar="RUN_DIR", help="complete the interrupted run in this folder")
    parser.add_argument(
        "--resume-or-start", action="store_true", help="complete the run in the run folder, or start it: for schedulers"
    )
    parser.epilog = (
        "Any field of the recipe can be set: --engine.seed 1, --optimizer.learning-rate=0.1, --data.source DIR. "
        "`halonet recipes NAME` prints them all."
    )


def run_training(
    options: argparse.Namespace,
    overrides: list[str],
    *,
    begin: Callable[[str, list[str], Path | None, bool], Path],
    resume: Callable[..., Path],
    describe: Callable[[dict[str, Any]], str],
    has_root: bool = False,
) -> None:
    """Train or resume, then say what was written, in the first of several processes.

    Args:
        options: As `add_training_flags` makes them.
        overrides: Fields of the recipe, with their values.
        begin: Trains a recipe with its overrides into a folder, or completes the same run there if it may, and returns
            the folder.
        resume: Completes the run in a folder, and returns the folder.
        describe: Puts a result into a line.
        has_root: Whether recipes have the field `data.root`, which `resume` takes as `root`, beside `source`.

    Raises:
        UserError: If --resume comes with anything else but `--data.root`, or the training fails.
    """
    from halonet.engine.run import read_result
    from halonet.engine.session import is_first_process

    if options.resume is not None:
        folder = resume(options.resume, **_changes_on_resume(options, overrides, has_root))
    else:
        recipe = options.default_recipe if options.recipe is None else options.recipe
        folder = begin(recipe, overrides, options.run_dir, options.resume_or_start)
    if not is_first_process():
        return
    print(printable(describe(read_result(folder))))
    print(printable(f"written to {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}"))


def _changes_on_resume(options: argparse.Namespace, overrides: list[str], has_root: bool) -> dict[str, str]:
    """Take the new place of the data, which alone may change when a run is resumed, and its name, which may not."""
    from halonet.recipes.load import split_overrides

    changes = dict(split_overrides(overrides))
    names = {"data.root": "root", "data.source": "source"} if has_root else {}
    taken = {names[key]: changes.pop(key) for key in names if key in changes}
    given = {
        f"the recipe {options.recipe}": options.recipe is not None,
        "--init": getattr(options, "init", None) is not None,
        **dict.fromkeys(changes, True),
    }
    if surplus := [name for name, is_given in given.items() if is_given]:
        exception = ", but for data.root" if has_root else ""
        raise UserError(
            f"--resume takes the recipe of the run as it is{exception}: leave out {', '.join(surplus)}, or train into "
            "another folder without --resume"
        )
    if options.run_dir is not None:
        raise UserError("--resume names the run folder already: leave --run-dir out")
    if options.resume_or_start:
        raise UserError("--resume and --resume-or-start exclude each other: --resume-or-start takes --run-dir")
    return taken
