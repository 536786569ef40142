"""Records that pydantic checks: strict and frozen, with the messages of `halonet.rules`."""

import dataclasses
import functools
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import pydantic.dataclasses
from pydantic import ConfigDict, ValidationError
from pydantic_core import CoreSchema, ErrorDetails, core_schema

from halonet.complaints import Complaint, RuleError, missing, must_be, must_be_one_of
from halonet.rules import build, hints_of

CONFIG = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

RecordT = TypeVar("RecordT")


@typing.dataclass_transform(kw_only_default=True, frozen_default=True)
def record(cls: type[RecordT]) -> type[RecordT]:
    """Make a class a frozen dataclass whose fields are checked by their annotations.

    Types are strict: text is not accepted for a number, a bool for an int, or NaN and infinity for a float. Ints are
    converted to floats, lists (from YAML or JSON) to tuples, and dictionaries to nested records. Rules that involve
    several fields belong in `__post_init__`, which runs after every field was checked.

    Returns:
        A dataclass with keyword-only fields, whose constructor raises a `RuleError` that names all fields that break a
        rule.
    """
    setattr(cls, "__get_pydantic_core_schema__", classmethod(_lenient_schema))  # noqa: B010 - pydantic's hook
    made = pydantic.dataclasses.dataclass(cls, frozen=True, kw_only=True, config=CONFIG)
    checked_init = made.__init__

    @functools.wraps(checked_init)
    def init(self: Any, *args: Any, **fields: Any) -> None:
        try:
            checked_init(self, *args, **fields)
        except ValidationError as error:
            raise RuleError.of(cls.__name__, complaints_of(error, made)) from None

    made.__init__ = init
    return made  # pyright: ignore[reportReturnType] - a class with the same fields


class Plain:
    """Marks a field whose type is a plain dataclass, checked by `halonet.rules.check_fields`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        """Pydantic's hook: build the dataclass from a dictionary."""
        return core_schema.no_info_plain_validator_function(functools.partial(build, source))


def check(hint: Any, value: Any, source: str, complaints: Sequence[Complaint] = ()) -> Any:
    """Check a value by an annotation, nested records included.

    Args:
        hint: The annotation.
        value: As read from a file.
        source: The file's name for messages.
        complaints: Earlier complaints, to be raised with the new ones.

    Returns:
        The value, with records in place of their dictionaries.

    Raises:
        RuleError: Some keys are unknown or missing, or values break a rule; it names them all.
    """
    try:
        checked = _adapter(hint).validate_python(value)
    except ValidationError as error:
        raise RuleError.of(source, [*complaints, *complaints_of(error, hint)]) from None
    if complaints:
        raise RuleError.of(source, complaints)
    return checked


def complaints_of(error: ValidationError, hint: Any) -> list[Complaint]:
    """Translate pydantic's error about values of the type `hint`."""
    details = error.errors(include_url=False)
    return [complaint for detail in details for complaint in _complaints(detail, hint)]


# For each of pydantic's error types, the words that complete the sentence "it must be ...".
_WORDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a finite number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "none_required": "null",
    "tuple_type": "a list",
    "list_type": "a list",
    "too_long": "a shorter list",
    "dict_type": "a section with keys",
    "dataclass_type": "a section with keys of its own",
}


def _complaints(detail: ErrorDetails, hint: Any) -> list[Complaint]:
    kind, path, context = detail["type"], detail["loc"], detail.get("ctx", {})
    key = ".".join(map(str, path))
    if kind == "value_error" and isinstance(error := context["error"], RuleError):
        return [complaint.under(key) for complaint in error.complaints]
    if kind == "missing" and isinstance(path[-1], int):
        return [must_be(key.rpartition(".")[0], detail["input"], "a longer list")]
    if kind == "missing":
        return [missing(key)]
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return [Complaint(key, known=_known_keys(path, hint))]
    if kind == "invalid_key":
        return [Complaint(key, "is not a key: keys are text")]
    if kind == "rule":
        words = context["words"]
    elif kind == "literal_error":
        names = [name.strip("'") for name in context["expected"].replace(" or ", ", ").split(", ")]
        return [must_be_one_of(key, detail["input"], names)]
    else:
        words = _WORDS.get(kind) or detail["msg"].removeprefix("Input should be ")
    return [must_be(key, detail["input"], words)]


def _known_keys(path: tuple[int | str, ...], hint: Any) -> tuple[str, ...]:
    """The valid keys of the record at the end of a path."""
    for part in path[:-1]:
        hint = bare(hint)
        if dataclasses.is_dataclass(hint):
            hint = hints_of(typing.cast(type, hint))[str(part)]
        else:  # the values of a dictionary, or the items of a list
            hint = typing.get_args(hint)[1 if typing.get_origin(hint) is dict else 0]
    return tuple(hints_of(bare(hint)))


def bare(hint: Any) -> Any:
    """Strip the rules and `None` from an annotation."""
    while typing.get_origin(hint) in (Annotated, typing.Union, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not types.NoneType)
    return hint


@functools.cache
def _adapter(hint: Any) -> pydantic.TypeAdapter:
    config = None if dataclasses.is_dataclass(hint) else CONFIG
    lenient: Any = Annotated[hint, _Lenient()]  # pyright: ignore[reportInvalidTypeForm]
    return pydantic.TypeAdapter(lenient, config=config)


class _Lenient:
    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return _lenient(handler(source))


def _lenient_schema(cls: type, source: Any, handler: Any) -> CoreSchema:
    return _lenient(handler(source))


def _lenient(schema: Any) -> Any:
    """Accept lists for tuples and dictionaries for records, which pydantic's strict mode refuses."""
    if isinstance(schema, list):
        return [_lenient(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    lenient = {key: _lenient(value) for key, value in schema.items()}
    if schema.get("type") == "dataclass":
        lenient["strict"] = False
    if schema.get("type") == "tuple":
        return core_schema.no_info_before_validator_function(_list_to_tuple, typing.cast(CoreSchema, lenient))
    return lenient


def _list_to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
