"""Mistakes in a recipe's name, its file and its keys, found without importing `halonet`."""

import functools
import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from halonet_cli.hints import unknown_name
from halonet_cli.parser import UsageError

# The command and the keys of each task's recipes; of the nested keys, null is a value, and "*" a section that takes
# any key.
# Written by tools/make_recipe_keys.py.
TASKS = Path(__file__).with_name("recipe_keys.json")
NOT_YET_RUN = "not yet run"  # the default of `halonet.recipes.schema`
MOST_LETTERS = 20_000  # of a user's file that is read here, which PyYAML does in 0.2 s


@functools.cache
def recipe_files() -> ModuleType:
    """Load `halonet.recipes.files` by its path: imported by its name, it would bring PyTorch along."""
    path = halonet_folder() / "recipes" / "files.py"
    spec = importlib.util.spec_from_file_location("halonet_cli._recipe_files", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


def halonet_folder() -> Path:
    """Find the package `halonet` without importing it."""
    spec = importlib.util.find_spec("halonet")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@functools.cache
def packaged() -> Any:
    """The recipes that come with the package, see `RecipeFiles`."""
    return recipe_files().RecipeFiles(halonet_folder() / "recipes")


@functools.cache
def tasks() -> dict[str, dict[str, Any]]:
    """The tasks by name, each with its `command` and the nested `keys` of its recipes."""
    return json.loads(TASKS.read_text(encoding="utf-8"))


def fields_of(task: str) -> list[str]:
    """List the fields of a task's recipes that can be set by flags: dotted keys."""

    def walk(keys: dict[str, Any], prefix: str) -> Iterator[str]:
        for key, below in keys.items():
            if below is None:
                yield prefix + key
            else:
                yield from walk(below, f"{prefix}{key}.")

    return [field for field in walk(tasks()[task]["keys"], "") if "." in field and "*" not in field]


def check_recipe(name_or_path: str, changes: Sequence[str], task: str) -> None:
    """Refuse a recipe that does not exist, and unknown keys in its file or on the command line.

    Doubtful cases are left to `halonet`, which reports all other mistakes.
    """
    try:
        recipe = _find(name_or_path)
        other = recipe.values.get("task", "classification")
        if other != task:
            if entry := tasks().get(other):
                raise UsageError(f"{recipe.source} is a recipe for {other}: train it with {entry['command']}")
            return
        wrong = [*_unknown_keys(_dotted(recipe.changes, tasks()[task]["keys"]), task)]
    except UsageError:
        raise
    except Exception:  # an odd file: not for this reader
        return
    wrong += _unknown_keys([change.partition("=")[0].split(".") for change in changes], task)
    if len(wrong) == 1:
        raise UsageError(f"{recipe.source}: {wrong[0]}")
    if wrong:
        raise UsageError("\n  ".join([f"{recipe.source}: {len(wrong)} mistakes", *wrong]))


def find_recipe(name: str) -> None:
    """Raise a `UsageError` if a recipe does not exist."""
    try:
        _find(name)
    except UsageError:
        raise
    except Exception:
        return


def _find(name_or_path: str) -> Any:
    files = recipe_files()
    try:
        return files.RecipeFiles(halonet_folder() / "recipes", _read).find(name_or_path)
    except files.UnknownRecipeError as error:
        source, kind = (f"{error.asked_by}: ", "base") if error.asked_by else ("", "recipe")
        more = "`halonet recipes` lists them; or give a .yaml file."
        raise UsageError(source + unknown_name(kind, error.name, error.known, more)) from None
    except files.RecipeFileError as error:
        raise UsageError(str(error)) from None


def _read(path: Path, source: str) -> dict[str, Any]:
    """Read a file; a user's only if it is short and holds no aliases, which may stand for more than there is memory."""
    if path.is_relative_to(halonet_folder() / "recipes"):
        return recipe_files().read_plainly(path, source)
    if not os.path.exists(path):
        raise UsageError(f"cannot read recipe {str(path)[:200]}: there is no such file")
    if not path.is_file() or path.stat().st_size > MOST_LETTERS:
        raise ValueError("not for this reader")
    import yaml

    text = path.read_text(encoding="utf-8")
    if re.search(r"[&*]\S", text):
        raise ValueError("not for this reader")
    values = yaml.safe_load(text)
    if not isinstance(values, dict):
        raise ValueError("not for this reader")
    return values


def _dotted(values: dict[str, Any], keys: dict[str, Any], path: Sequence[str] = ()) -> Iterator[list[str]]:
    """The keys in nested dictionaries, as far down as sections are known."""
    for key, value in values.items():
        below = keys.get(key)
        yield [*path, str(key)]
        if isinstance(value, dict) and below is not None:
            yield from _dotted(value, below, [*path, str(key)])


def _unknown_keys(paths: Any, task: str) -> list[str]:
    """Describe each path with an unknown key."""
    wrong = []
    for path in paths:
        keys: Any = tasks()[task]["keys"]
        for depth, part in enumerate(path):
            if keys is None or "*" in keys:
                break
            if part not in keys:
                section = "".join(f"{each}." for each in path[:depth])
                wrong.append(unknown_name("key", section + part, [section + key for key in keys]))
                break
            keys = keys[part]
    return wrong
