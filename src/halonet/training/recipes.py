"""Reading recipes: YAML files in the package or anywhere, with overrides from the command line, typed."""

import copy
import dataclasses
import re
import typing
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from halonet.errors import UserError, unknown_name
from halonet.training.recipe import Recipe

# What runs the recipes of each task.
COMMANDS = {"classification": "halonet train", "detection": "halonet detect train"}


def list_recipes() -> list[str]:
    """Name the recipes that come with the package.

    Returns:
        Sorted names such as "fashion_mnist" and "imagenet/h0", each good for `resolve`.
    """
    return sorted(name for name, _ in _packaged())


SchemaT = TypeVar("SchemaT")


def resolve(name_or_path: str | Path, overrides: Sequence[str] = (), schema: type[SchemaT] = Recipe) -> SchemaT:
    """Read a recipe.

    Args:
        name_or_path: One of `list_recipes()`, or a YAML file.
        overrides: Such as "--schedule.epochs=10", "schedule.epochs=10" or "--schedule.epochs", "10". Hyphens in a key
            stand for underscores.
        schema: The recipe's class, with the task as the default of its field `task`.

    Returns:
        The recipe, complete and checked.

    Raises:
        UserError: There is no such recipe, it is for another task, the file is not YAML, a key is unknown or missing,
            or a value is of the wrong type or out of its range.
    """
    name, values, source = _read(name_or_path)
    task = _task(values)
    if task != getattr(schema, "task"):  # noqa: B009 - a field of every schema
        command = COMMANDS.get(task, f"no command: known are {', '.join(COMMANDS)}")
        raise UserError(f"{source} is a recipe of {task}, which is for {command}")
    for key, value in split_overrides(overrides):
        _override(values, key, value, schema)
    values.setdefault("name", name)
    return build(values, source, schema)


def build(values: dict[str, Any], source: str, schema: type[SchemaT] = Recipe) -> SchemaT:
    """Make a recipe of nested dictionaries.

    Args:
        values: By key, as YAML gives them.
        source: What to call them in messages.
        schema: The recipe's class.

    Returns:
        The recipe, complete and checked.

    Raises:
        UserError: A key is unknown or missing, or a value is of the wrong type or out of its range.
    """
    _check_keys(values, schema, source)
    try:
        return _build(schema, _parser(schema).parse_object(values).as_dict())
    except ArgumentError as error:
        message = re.sub(r"Parser key |typing\.|<class '|(?<=\w)'>", "", " ".join(str(error).split()))
        raise UserError(f"{source}: {message.replace('Expected a ', 'expected ')}") from error
    except UserError as error:
        raise UserError(f"{source}: {error}") from error


def derive(base: dict[str, Any], changes: dict[str, Any], source: str, schema: type = Recipe) -> dict[str, Any]:
    """Take a recipe that says only what differs from another.

    Args:
        base: The other's nested dictionaries; they are not changed.
        changes: Values by dotted key, such as "model.overrides.halo_size".
        source: What to call the recipe in messages.
        schema: The recipe's class.

    Returns:
        Nested dictionaries, for `build`.

    Raises:
        UserError: A key is unknown, or names a section.
    """
    values = copy.deepcopy(base)
    for key, value in changes.items():
        try:
            section, name, _ = _find_key(values, key, schema)
        except UserError as error:
            raise UserError(f"{source}: {error}") from error
        section[name] = value
    return values


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """Read YAML 1.2 that holds keys; raises UserError, naming the source, for anything else."""
    try:
        values = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{source} is not a recipe: it holds no keys")
    return values


def task_of(name_or_path: str | Path) -> str:
    """Tell what a recipe is for.

    Args:
        name_or_path: As for `resolve`.

    Returns:
        A key of `COMMANDS`, if it is one of ours.

    Raises:
        UserError: There is no such recipe, or the file is not YAML.
    """
    return _task(_read(name_or_path)[1])


def to_yaml(recipe: Any) -> str:
    """Write a recipe so that `resolve` reads the same one.

    Args:
        recipe: Of any task.

    Returns:
        YAML, every field included.
    """
    values = _plain(dataclasses.asdict(recipe))
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


def without_root(text: str) -> dict[str, Any]:
    """Read what `to_yaml` wrote, less the folder that the data lies in, which is no part of an experiment.

    Nulls are left out too: a value that an older version did not know is null where it changes nothing.
    """
    values = yaml.load(text, _Loader)
    values["data"].pop("root", None)
    return _without_nulls(values)


def _without_nulls(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_nulls(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if value is not None
    }


class _Loader(yaml.SafeLoader):
    """PyYAML reads 1e-4 as text, as YAML 1.1 said; YAML 1.2 reads a number, and so does everybody else."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


class _Dumper(yaml.SafeDumper):
    """Writes lists on one line."""


_Dumper.add_representer(
    list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)
)


def _packaged() -> Iterator[tuple[str, Traversable]]:
    def walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
        for entry in folder.iterdir():
            if entry.is_dir():
                yield from walk(entry, f"{prefix}{entry.name}/")
            elif entry.name.endswith(".yaml"):
                yield prefix + entry.name.removesuffix(".yaml"), entry

    yield from walk(resources.files("halonet") / "recipes", "")


def _find(name_or_path: str) -> tuple[str, str, str]:
    """The recipe's name, its text, and what to call it in messages."""
    packaged = dict(_packaged())
    name = name_or_path.replace("-", "_")
    if name in packaged:
        return name, packaged[name].read_text(encoding="utf-8"), f"recipe {name}"
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(unknown_name("recipe", name_or_path, packaged) + " Or give a .yaml file")
    try:
        return path.stem, path.read_text(encoding="utf-8"), str(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read recipe {path}: {getattr(error, 'strerror', None) or error}") from error


def _read(name_or_path: str | Path) -> tuple[str, dict[str, Any], str]:
    """The recipe's name, its keys, and what to call it in messages."""
    name, text, source = _find(str(name_or_path))
    return name, parse_yaml(text, source), source


def _task(values: dict[str, Any]) -> str:
    return str(values.get("task", "classification"))


def split_overrides(overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Take overrides apart into keys and values, as text."""
    words = iter(overrides)
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            key, value = word, next(words, None)
            if value is None:
                raise UserError(f"{word} has no value: write {word}=VALUE")
        yield key.removeprefix("--").replace("-", "_"), value


def _check_keys(values: dict[str, Any], section: type, source: str, prefix: str = "") -> None:
    hints = typing.get_type_hints(section)
    for key, value in values.items():
        if key not in hints:
            raise UserError(f"{source}: {unknown_name('key', f'{prefix}{key}', [prefix + name for name in hints])}")
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, dict):
                raise UserError(f"{source}: {prefix}{key} is {value!r}, but must be a section with keys of its own")
            _check_keys(value, hints[key], source, f"{prefix}{key}.")


def _override(values: dict[str, Any], key: str, text: str, schema: type) -> None:
    section, name, hint = _find_key(values, key, schema)
    try:
        section[name] = text if _is_text(hint) and text != "null" else yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{key}: {text!r} is not a value: {' '.join(str(error).split())}") from error


def _find_key(values: dict[str, Any], key: str, schema: type) -> tuple[dict[str, Any], str, Any]:
    """Find the section that a dotted key lies in (it is made), the key's last part, and the type of its value."""
    section: Any = schema
    path = key.split(".")
    for depth, part in enumerate(path):
        if dataclasses.is_dataclass(section):
            hints = typing.get_type_hints(section)
            if part not in hints:
                prefix = "".join(f"{name}." for name in path[:depth])
                raise UserError(unknown_name("key", prefix + part, [prefix + name for name in hints]))
            section = hints[part]
        elif section is not dict and typing.get_origin(section) is not dict:
            raise UserError(f"unknown key {key!r}: {'.'.join(path[:depth])} is a value without keys of its own")
        else:
            section = Any
        if depth < len(path) - 1:
            values = values.setdefault(part, {})
    if dataclasses.is_dataclass(section):
        raise UserError(f"{key} is a section: set one of its keys, such as {key}.{dataclasses.fields(section)[0].name}")
    return values, path[-1], section


def _is_text(hint: Any) -> bool:
    """Whether a field takes the words as they are, even if they look like a number; null stays null where it may."""
    return hint in (str, str | None) or (
        typing.get_origin(hint) is Literal and all(isinstance(arg, str) for arg in typing.get_args(hint))
    )


@cache
def _parser(schema: type) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(schema)
    return parser


def _build(section: Any, values: Any) -> Any:
    """Build a dataclass from the nested dictionaries of its fields."""
    if dataclasses.is_dataclass(values):
        return values
    hints = typing.get_type_hints(section)
    return section(
        **{
            name: _build(hints[name], value) if dataclasses.is_dataclass(hints[name]) else value
            for name, value in values.items()
        }
    )


def _plain(value: Any) -> Any:
    """Tuples as lists, which YAML has."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
