"""`halonet train`, and what it shares with `halonet detect train`."""

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from halonet_cli.parser import Parser, UsageError, add_command
from halonet_cli.recipe_check import check_recipe


def add(commands: Any) -> None:
    """Add the command."""
    train = add_command(
        commands, "train", "train:run_train", "train a recipe; with no arguments, fashion_mnist", check=check_train
    )
    add_training_flags(train, "classification", "fashion_mnist")


def add_training_flags(parser: Parser, task: str, default_recipe: str) -> None:
    """Add a recipe, a run folder and a run to resume."""
    parser.task = task
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


def split_changes(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate the fields of the recipe from the other words of a training command.

    Returns:
        The words for the parser, and the changes as "schedule.epochs=3", which the user may write as
        `--schedule.epochs 3`, `--schedule.epochs=3` or `schedule.epochs=3`, with hyphens for underscores.

    Raises:
        UsageError: A field has no value.
    """
    rest, changes, words = [], [], iter(argv)
    for word in words:
        key, equals, value = word.partition("=")
        if not re.fullmatch(r"(--)?[A-Za-z][\w-]*(\.[\w-]+)+", key) or not (equals or key.startswith("--")):
            rest.append(word)
            continue
        if not equals:
            value = next(words, None)
            if value is None:
                raise UsageError(f"{word} has no value: write {word}=VALUE")
        changes.append(f"{key.removeprefix('--').replace('-', '_')}={value}")
    return rest, changes


def check_train(options: argparse.Namespace) -> None:
    """Check what is trained or resumed, as far as that goes without reading values."""
    options.changes_on_resume = {}
    if options.resume is not None:
        options.changes_on_resume = _changes_on_resume(options)
        if not os.path.exists(options.resume / "recipe.yaml"):
            raise UsageError(
                f"{options.resume} holds no run to resume: it has no recipe.yaml; start one with --run-dir "
                f"{options.resume}"
            )
        return
    if options.recipe is None:
        options.recipe = options.default_recipe
    check_recipe(options.recipe, options.changes, options.parser.task)


def _changes_on_resume(options: argparse.Namespace) -> dict[str, str]:
    """Take the new place of the data, which alone may change when a run is resumed, and its name, which may not."""
    changes = as_dictionary(options.changes)
    has_root = options.parser.task == "classification"
    names = {"data.root": "root", "data.source": "source"} if has_root else {}
    taken = {names[key]: changes.pop(key) for key in names if key in changes}
    given = {
        f"the recipe {options.recipe}": options.recipe is not None,
        "--init": getattr(options, "init", None) is not None,
        **dict.fromkeys(changes, True),
    }
    if surplus := [name for name, is_given in given.items() if is_given]:
        exception = ", except data.root" if has_root else ""
        raise UsageError(
            f"--resume takes the recipe of the run as it is{exception}: leave out {', '.join(surplus)}, or train into "
            "another folder without --resume"
        )
    if options.run_dir is not None:
        raise UsageError("--resume names the run folder already: leave --run-dir out")
    if options.resume_or_start:
        raise UsageError("--resume and --resume-or-start exclude each other: --resume-or-start takes --run-dir")
    return taken


def as_dictionary(changes: Sequence[str]) -> dict[str, str]:
    """Split changes such as "schedule.epochs=3" into keys and values."""
    return {key: value for key, _, value in (change.partition("=") for change in changes)}
