"""Recipes as YAML files state them: found by name, and each put together from its base and what differs from it.

A file is one recipe, or has `variations:`, which are recipes by name that share what stands beside them: the variation
`b4_h1` in `imagenet/windows.yaml` is the recipe `imagenet/windows/b4_h1`. A recipe may name another as its `base:`;
sections are merged key by key, any other value replaces that of the base. A variation with a base of its own takes
nothing from what stands beside `variations:`.

This module imports the standard library and PyYAML alone, so that it can be loaded by its path without importing
halonet, and with it PyTorch. Keep it so.
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

MOST_BASES = 8  # one upon another
LONGEST_BASE = 500
# What a recipe says of itself. Its base says it of another experiment.
NOT_INHERITED = ("name", "description", "reproduces", "provenance")


class RecipeFileError(ValueError):
    """A mistake in a recipe file, told on one line."""


class UnknownRecipeError(LookupError):
    """There is no such recipe.

    Attributes:
        name: What was asked for.
        known: The recipes of the package.
        asked_by: What to call the file that names it as its base; empty where no file does.
    """

    def __init__(self, name: str, known: list[str], asked_by: str) -> None:
        super().__init__(f"unknown recipe {name!r}")
        self.name, self.known, self.asked_by = name, known, asked_by


@dataclass(frozen=True)
class WrittenRecipe:
    """A recipe as its file states it, unchecked.

    Attributes:
        name: By its path among the packaged recipes, or the stem of the file.
        source: What to call it in messages.
        changes: Its own keys.
        base: The recipe that these differ from.
        values: Its nested dictionaries, with what the base adds.
    """

    name: str
    source: str
    changes: dict[str, Any]
    base: "WrittenRecipe | None"
    values: dict[str, Any]


def merge(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Lay changes over nested dictionaries, key by key.

    Args:
        values: The nested dictionaries; they are not changed.
        changes: Dictionaries are merged with those in `values`; anything else, lists too, replaces what stands there.
    """
    merged = copy.deepcopy(values)
    for key, change in changes.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(change, dict):
            merged[key] = merge(below, change)
        else:
            merged[key] = copy.deepcopy(change)
    return merged


def read_plainly(file: Traversable, source: str) -> dict[str, Any]:
    """Read a YAML file that is known to be sound; a number such as 1e-4, without a point, is read as text.

    Args:
        file: The file.
        source: What to call it in messages.
    """
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
            folder: Its files are named by their paths in it.
            read: Gives the keys of a file, and takes what to call it in messages.
        """
        self._folder = folder
        self._read = read
        self._contents: dict[str, dict[str, Any]] = {}  # the files in the folder stay as they are while we run

    def names(self) -> list[str]:
        """Name the recipes in the folder, sorted."""
        names = []
        for file in self._files:
            has_variations = "variations" in self._content(file)
            names += [f"{file}/{name}" for name in self._variations(file)] if has_variations else [file]
        if twice := {name for name in names if names.count(name) > 1}:
            raise RecipeFileError(f"the recipes have {min(twice)} twice")
        return sorted(names)

    def find(self, name_or_path: str) -> WrittenRecipe:
        """Find a recipe and all its bases.

        Args:
            name_or_path: A name in the folder, or a file elsewhere that ends in .yaml or .yml.

        Raises:
            UnknownRecipeError: It, or a base, is neither.
            RecipeFileError: A base is wrong.
            Exception: What reading a file raises.
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
        """What the folder states of a recipe, if it has it."""
        if name in self._files and "variations" not in self._content(name):
            return _Stated(name, f"recipe {name}", name, None, self._content(name))
        file, _, variation = name.rpartition("/")
        variations = self._variations(file) if file in self._files else {}
        return _Stated(name, f"recipe {name}", name, None, variations[variation]) if variation in variations else None

    def _elsewhere(self, wanted: str, folder: Path | None, asked_by: str) -> "_Stated | None":
        """What a file says by its path from a folder, if it is a path; None for the folder stands for the package."""
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
    """What a file says of a recipe, its bases not read yet."""

    name: str
    source: str  # what to call it in messages
    place: str  # where it stands: no two recipes have the same
    folder: Path | None  # where the path of its base starts; None in the package, whose bases have names
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
    """Refuse a recipe that is a base of its own, and too many bases."""
    places = [each.place for each in above]
    if stated.place in places:
        others = [each.source for each in above[places.index(stated.place) + 1 :]]
        through = f", through {' and '.join(others)}" if others else ""
        raise RecipeFileError(f"{stated.source} is its own base{through}")
    if len(above) > MOST_BASES:
        raise RecipeFileError(
            f"{above[0].source} has over {MOST_BASES} bases, one upon another: name one of the later ones as its base"
        )


def _check_task(stated: _Stated, base: WrittenRecipe) -> None:
    base_task = base.values.get("task", "classification")
    task = stated.keys.get("task", base_task)
    if task != base_task:
        raise RecipeFileError(
            f"{stated.source} is a recipe of {_shown(task)}, but its base, {base.source}, is one of {_shown(base_task)}"
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
