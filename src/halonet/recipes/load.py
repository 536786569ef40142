"""Recipes from YAML files, with overrides from the command line, checked and typed."""

import copy
import dataclasses
import pkgutil
import typing
import warnings
from collections.abc import Iterator, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from halonet.complaints import Complaint, RuleError, shown
from halonet.errors import LONGEST_NAME, UserError, UserNote, unknown_name
from halonet.recipes.files import RecipeFileError, RecipeFiles, UnknownRecipeError, WrittenRecipe, merge
from halonet.recipes.schema import AnyRecipe, OptimizerSection
from halonet.recipes.tasks import require_task
from halonet.recipes.yaml_text import dump_yaml, parse_value, parse_yaml, read_text
from halonet.rules import hints_of
from halonet.schemas import check


def list_recipes() -> list[str]:
    """List the names of the packaged recipes, such as "fashion_mnist" and "imagenet/h0", sorted."""
    return _FILES.names()


SchemaT = TypeVar("SchemaT")


def resolve(name_or_path: str | Path, overrides: Sequence[str] = (), *, task: str | None = None) -> AnyRecipe:
    """Read a recipe, with its bases and overrides.

    Args:
        name_or_path: One of `list_recipes()`, or a YAML file.
        overrides: Such as "--schedule.epochs=10", "schedule.epochs=10" or "--schedule.epochs", "10". Hyphens in a key
            stand for underscores.
        task: The task that the recipe must have, "classification" or "detection"; None allows both.

    Returns:
        The checked recipe, a `Recipe` or a `DetectionRecipe`.

    Raises:
        UserError: There is no such recipe, it is for another task, the file is not YAML, a key is unknown or missing,
            or a value is of the wrong type or out of its range.
    """
    written = find(name_or_path)
    found = _task(written)
    entry = require_task(found, written.source)
    if task not in (None, found):
        raise UserError(f"{written.source} is a recipe for {found}: train it with {entry.command}")
    schema = pkgutil.resolve_name(entry.recipe)
    _check_bases(written, schema)
    values, complaints, keys = copy.deepcopy(written.values), [], set()
    for key, value in split_overrides(overrides):
        keys.add(key)
        try:
            _override(values, key, value, schema)
        except RuleError as error:
            complaints += error.complaints
    values.setdefault("name", written.name)
    recipe = check(schema, values, written.source, complaints)
    if "optimizer.learning_rate" not in keys:
        _note_the_learning_rate(recipe, written)
    return recipe


def derive(base: dict[str, Any], changes: dict[str, Any], source: str, schema: type) -> dict[str, Any]:
    """Change values of a recipe that is given as nested dictionaries.

    Args:
        base: The nested dictionaries; not changed.
        changes: Values by dotted key, such as "model.overrides.halo_size"; a dictionary is merged with that of the
            base.
        source: The name of the recipe in messages.
        schema: The class of the recipe.

    Returns:
        Nested dictionaries, unchecked.

    Raises:
        UserError: A key is unknown, or names a section.
    """
    nested: dict[str, Any] = {}
    for key, value in changes.items():
        try:
            section, name, _ = _find_key(nested, key, schema)
        except RuleError as error:
            raise RuleError.of(source, error.complaints) from error
        section[name] = copy.deepcopy(value)
    return merge(base, nested)


def task_of(name_or_path: str | Path) -> str:
    """Return the task of a recipe, unchecked.

    Raises:
        UserError: There is no such recipe, or the file is not YAML.
    """
    return _task(find(name_or_path))


def to_yaml(recipe: Any) -> str:
    """Write a recipe of any task as YAML with all its fields, from which `resolve` reads the same one."""
    return dump_yaml(_plain(dataclasses.asdict(recipe)))


def completed(recipe: SchemaT, other: SchemaT) -> SchemaT:
    """Replace the null values of a recipe, or a section of it, by those of another."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(recipe):  # pyright: ignore[reportArgumentType] - a recipe is a dataclass
        value, others = getattr(recipe, field.name), getattr(other, field.name)
        values[field.name] = completed(value, others) if dataclasses.is_dataclass(value) else value
        if value is None:
            values[field.name] = others
    return type(recipe)(**values)


def was_edited(text: str, recipe: Any, places: Sequence[str] = ("root",)) -> bool:
    """Whether a recipe differs from the one that a run began with.

    Args:
        text: The YAML of the old recipe; an older version has fewer fields, which had the current defaults.
        recipe: The current recipe.
        places: Keys of `data` that may differ because they say where it is.
    """
    try:
        source = "the recipe of the checkpoint"
        begun = check(type(recipe), parse_yaml(text, source), source)
    except UserError:
        return True
    versions = [dataclasses.asdict(each) for each in (begun, recipe)]
    for values in versions:
        for place in places:
            values["data"].pop(place, None)
    return versions[0] != versions[1]


def _read(file: Traversable, source: str) -> dict[str, Any]:
    return parse_yaml(read_text(file, f"recipe {file}"), source)


_FILES = RecipeFiles(resources.files("halonet") / "recipes", _read)


def find(name_or_path: str | Path) -> WrittenRecipe:
    """Read a recipe and its bases without checking them; takes and raises what `resolve` does."""
    try:
        return _FILES.find(str(name_or_path))
    except UnknownRecipeError as error:
        source, kind = (f"{error.asked_by}: ", "base") if error.asked_by else ("", "recipe")
        raise UserError(f"{source}{unknown_name(kind, error.name, error.known)} Or give a .yaml file") from None
    except RecipeFileError as error:
        raise UserError(str(error)) from None


def _task(written: WrittenRecipe) -> str:
    task = written.values.get("task", "classification")
    return task if isinstance(task, str) and len(task) <= LONGEST_NAME else shown(task)


def _check_bases(written: WrittenRecipe, schema: type) -> None:
    """Check every base as a recipe of its own, so that messages about its mistakes name it."""
    if written.base is not None:
        _check_bases(written.base, schema)
        check(schema, written.base.values, written.base.source)


def split_overrides(overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Split overrides into keys and values, as text."""
    words = iter(overrides)
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            key, value = word, next(words, None)
            if value is None:
                raise UserError(f"{word} has no value: write {word}=VALUE")
        yield key.removeprefix("--").replace("-", "_"), value


def _override(values: dict[str, Any], key: str, text: str, schema: type) -> None:
    section, name, hint = _find_key(values, key, schema)
    section[name] = text if _is_text(hint) and text != "null" else parse_value(text, key)


def _find_key(values: dict[str, Any], key: str, schema: type) -> tuple[dict[str, Any], str, Any]:
    """Find the section of a dotted key (made if missing), the last part of the key, and the type of its value."""
    section: Any = schema
    path = key.split(".")
    for depth, part in enumerate(path):
        within = ".".join(path[:depth])
        if dataclasses.is_dataclass(section):
            hints = hints_of(typing.cast(type, section))
            if part not in hints:
                raise _wrong_key(Complaint(".".join(path[: depth + 1]), known=tuple(hints)))
            section = _without_rules(hints[part])
        elif typing.get_origin(section) is not dict:
            raise _wrong_key(Complaint(key, f"is not a key: {within} is a value without keys of its own"))
        else:
            section = Any
        if depth < len(path) - 1:
            inner = values.setdefault(part, {})
            # If the file has a value in place of this section, checking the recipe will say so.
            values = inner if isinstance(inner, dict) else {}
    if dataclasses.is_dataclass(section):
        first = dataclasses.fields(section)[0].name
        raise _wrong_key(Complaint(key, f"is a section: set one of its keys, such as {key}.{first}"))
    return values, path[-1], section


def _wrong_key(complaint: Complaint) -> RuleError:
    return RuleError.of("override", [complaint])


def _without_rules(hint: Any) -> Any:
    """Remove the rules from an annotation; a union with None stays."""
    while typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    return hint


def _is_text(hint: Any) -> bool:
    """Whether a field takes text as it is, even if it looks like a number; null stays null where that is allowed."""
    parts = [_without_rules(part) for part in typing.get_args(hint)]
    return (
        hint is str
        or set(parts) == {str, type(None)}
        or (typing.get_origin(hint) is Literal and all(isinstance(part, str) for part in parts))
    )


def _note_the_learning_rate(recipe: Any, written: WrittenRecipe) -> None:
    """Suggest a learning rate if only the batch size was changed."""
    while written.base is not None and "learning_rate" not in written.changes.get("optimizer", {}):
        written = written.base
    optimizer = recipe.optimizer
    usual = written.values.get("optimizer", {}).get("batch_size", OptimizerSection.batch_size)
    if not isinstance(usual, int) or None in (optimizer.batch_size, optimizer.learning_rate):
        return  # values from the data will fit one another
    if usual == optimizer.batch_size:
        return
    scaled = f"{optimizer.learning_rate * optimizer.batch_size / usual:.3g}"
    note = (
        f"optimizer.batch_size is {optimizer.batch_size} in place of {usual}, but optimizer.learning_rate is still "
        f"{optimizer.learning_rate}: a rate in proportion to the batch is {scaled}; "
        f"set it with --optimizer.learning_rate={scaled}, or repeat the old one to see no note"
    )
    warnings.warn(UserNote(note), stacklevel=3)


def _plain(value: Any) -> Any:
    """Convert tuples to lists for YAML."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
