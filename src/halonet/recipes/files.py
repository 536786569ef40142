"""Recipes in YAML files: found by name and merged with their bases, but not checked.

A file is one recipe, or has `variations:`, which are recipes by name that share the other keys of the file: the
variation `b4_h1` in `imagenet/windows.yaml` is the recipe `imagenet/windows/b4_h1`. A recipe may name another as its
`base:`; sections are merged key by key, any other value replaces that of the base. A variation with its own base takes
nothing from the other keys of the file.

This module imports only the standard library and PyYAML, so that it can be loaded by its path without importing
halonet, which imports PyTorch. Keep it so.
"""

import copy
import functools
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

MOST_BASES = 8  # in a chain
LONGEST_BASE = 500
# Keys that describe one experiment, so that a base does not pass them on.
NOT_INHERITED = ("name", "description", "reproduces", "provenance")


class RecipeFileError(ValueError):
    """A mistake in a recipe file, described in one line."""


class UnknownRecipeError(LookupError):
    """There is no such recipe.

    Attributes:
        name: The name that was asked for.
        known: The recipes of the package.
        asked_by: The name in messages of the recipe that has it as its base; empty if it was asked for directly.
    """

    def __init__(self, name: str, known: list[str], asked_by: str) -> None:
        super().__init__(f"unknown recipe {name!r}")
        self.name, self.known, self.asked_by = name, known, asked_by


@dataclass(frozen=True)
class WrittenRecipe:
    """A recipe as its file states it, not checked.

    Attributes:
        name: Its path among the packaged recipes, or the stem of the file.
        source: Its name in messages.
        changes: Its own keys.
        base: The recipe that it changes.
        values: The result of merging both, as nested dictionaries.
    """

    name: str
    source: str
    changes: dict[str, Any]
    base: "WrittenRecipe | None"
    values: dict[str, Any]


def merge(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Merge changes into a copy of nested dictionaries, key by key; other values, and lists, are replaced."""
    merged = copy.deepcopy(values)
    for key, change in changes.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(change, dict):
            merged[key] = merge(below, change)
        else:
            merged[key] = copy.deepcopy(change)
    return merged


def read_plainly(file: Traversable, source: str) -> dict[str, Any]:
    """Read a valid YAML file, called `source` in messages; numbers without a point, such as 1e-4, become text."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    values = yaml.load(file.read_text(encoding="utf-8"), loader)
    if not isinstance(values, dict):
        raise RecipeFileError(f"{source} holds no keys: it must be YAML of the form KEY: VALUE")
    return values


class RecipeFiles:
    """The recipes in a folder, and files elsewhere that have them as bases."""

    def __init__(self, folder: Traversable, read: Callable[[Traversable, str], dict[str, Any]] = read_plainly) -> None:
        """Take a folder.

        Args:
            folder: Its recipes are named by their paths in it.
            read: Returns the keys of a file; its second argument is the name of the file in messages.
        """
        self._folder = folder
        self._read = read
        self._contents: dict[str, dict[str, Any]] = {}  # packaged files do not change

    def names(self) -> list[str]:
        """List the names of the recipes in the folder, sorted."""
        names = []
        for file in self._files:
            has_variations = "variations" in self._content(file)
            names += [f"{file}/{name}" for name in self._variations(file)] if has_variations else [file]
        if twice := {name for name in names if names.count(name) > 1}:
            raise RecipeFileError(f"recipe {min(twice)} is defined twice")
        return sorted(names)

    def find(self, name_or_path: str) -> WrittenRecipe:
        """Find a recipe and all its bases.

        Args:
            name_or_path: A name in the folder, or a file elsewhere that ends in .yaml or .yml.

        Raises:
            UnknownRecipeError: The recipe, or one of its bases, is neither.
            RecipeFileError: A base is wrong.
            Exception: Reading a file failed.
        """
        return self._find(name_or_path, Path(), ())

    def _find(self, wanted: str, folder: Path | None, above: tuple["_Stated", ...]) -> WrittenRecipe:
        asked_by = above[-1].source if above else ""
        stated = self._packaged(wanted.replace("-", "_")) or self._elsewhere(wanted, folder, asked_by)
        if stated is None:
            raise UnknownRecipeError(wanted, self.names(), asked_by)
        _check_descent(stated, above)
        changes = {key: value for key, value in stated.keys.items() if key != "base"}
        if "base" not in stated.keys:
            return WrittenRecipe(stated.name, stated.source, changes, None, changes)
        base = self._find(_base(stated), stated.folder, (*above, stated))
        _check_task(stated, base)
        inherited = {key: value for key, value in base.values.items() if key not in NOT_INHERITED}
        return WrittenRecipe(stated.name, stated.source, changes, base, merge(inherited, changes))

    def _packaged(self, name: str) -> "_Stated | None":
        """Look up a recipe in the folder."""
        if name in self._files and "variations" not in self._content(name):
            return _Stated(name, f"recipe {name}", name, None, self._content(name))
        file, _, variation = name.rpartition("/")
        variations = self._variations(file) if file in self._files else {}
        return _Stated(name, f"recipe {name}", name, None, variations[variation]) if variation in variations else None

    def _elsewhere(self, wanted: str, folder: Path | None, asked_by: str) -> "_Stated | None":
        """Read the file that a path names, starting at a folder; bases of packaged recipes have none."""
        if folder is None or Path(wanted).suffix not in (".yaml", ".yml"):
            return None
        path = folder / wanted
        if asked_by and not os.path.exists(path):
            raise RecipeFileError(
                f"{asked_by}: base is {path}, but there is no such file: give its path from the file that names it, or "
                "a name that `halonet recipes` lists"
            )
        keys = self._read(path, str(path))
        if "variations" in keys:
            raise RecipeFileError(
                f"{path} has variations, which only recipes of the package have: write a file for each, with a base"
            )
        return _Stated(path.stem, str(path), os.path.realpath(path), path.parent, keys)

    @functools.cached_property
    def _files(self) -> dict[str, Traversable]:
        """The files in the folder by their paths, without suffix."""
        files: dict[str, Traversable] = {}

        def walk(folder: Traversable, prefix: str) -> None:
            for entry in folder.iterdir():
                if entry.is_dir():
                    walk(entry, f"{prefix}{entry.name}/")
                elif entry.name.endswith(".yaml"):
                    files[prefix + entry.name.removesuffix(".yaml")] = entry

        walk(self._folder, "")
        return files

    def _content(self, file: str) -> dict[str, Any]:
        if file not in self._contents:
            self._contents[file] = self._read(self._files[file], f"recipe {file}")
        return self._contents[file]

    def _variations(self, file: str) -> dict[str, dict[str, Any]]:
        shared = dict(self._content(file))
        variations = shared.pop("variations", {})
        for key in NOT_INHERITED:
            if key in shared:
                raise RecipeFileError(f"recipes {file}: {key} stands beside variations, but each says its own")
        return {name: changes if "base" in changes else merge(shared, changes) for name, changes in variations.items()}


class _Stated(NamedTuple):
    """The content of a file for one recipe, before its bases are read."""

    name: str
    source: str  # its name in messages
    place: str  # unique to this recipe
    folder: Path | None  # where the path of its base starts; None in the package, whose bases are names
    keys: dict[str, Any]


def _base(stated: _Stated) -> str:
    base = stated.keys["base"]
    if not isinstance(base, str) or not base.isprintable() or not 0 < len(base) <= LONGEST_BASE:
        raise RecipeFileError(
            f"{stated.source}: base is {_shown(base)}, but must be the name of a recipe, such as imagenet/h0, or the "
            "path of a YAML file from this one"
        )
    return base


def _check_descent(stated: _Stated, above: tuple[_Stated, ...]) -> None:
    """Refuse a recipe that is its own base, and too many bases."""
    places = [each.place for each in above]
    if stated.place in places:
        others = [each.source for each in above[places.index(stated.place) + 1 :]]
        through = f", through {' and '.join(others)}" if others else ""
        raise RecipeFileError(f"{stated.source} is its own base{through}")
    if len(above) > MOST_BASES:
        raise RecipeFileError(
            f"{above[0].source} has a chain of over {MOST_BASES} bases: name one further along the chain as its base"
        )


def _check_task(stated: _Stated, base: WrittenRecipe) -> None:
    base_task = base.values.get("task", "classification")
    task = stated.keys.get("task", base_task)
    if task != base_task:
        raise RecipeFileError(
            f"{stated.source} is a recipe for {_shown(task)}, but its base, {base.source}, is one for "
            f"{_shown(base_task)}"
        )


def _shown(value: Any) -> str:
    """Show a value on one line, cut short if it is long."""
    if isinstance(value, str) and re.fullmatch(r"\w{1,100}", value):
        return value
    try:
        text = ascii(value)
    except ValueError:  # Python refuses to print integers of over 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 100 else f"{text[:100]}..."
