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

from halonet.rules import Complaint, RuleError, build, hints_of, missing, must_be, must_be_one_of

CONFIG = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

RecordT = TypeVar("RecordT")


@typing.dataclass_transform(kw_only_default=True, frozen_default=True)
def record(cls: type[RecordT]) -> type[RecordT]:
    """Make a class a frozen dataclass whose fields are checked by their annotations.

    Types are strict: no text passes for a number, no bool for an int, no NaN or infinity for a float. An int passes for
    a float; a list, as YAML and JSON give it, for a tuple; and a dictionary for a record within the record. Where
    fields must fit one another, `__post_init__` raises a `RuleError`; the fields are known to be sound by then.

    Args:
        cls: The class. Fields are given by their names.

    Returns:
        The dataclass. Making one raises a `RuleError` that names all fields that break a rule.
    """
    setattr(cls, "__get_pydantic_core_schema__", classmethod(_as_files_give_it))  # noqa: B010 - pydantic's hook
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
    """Marks a field whose type is a plain dataclass that checks itself, see `halonet.rules.check_fields`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        """Have the dataclass made of its dictionary; only pydantic calls this."""
        return core_schema.no_info_plain_validator_function(functools.partial(build, source))


def check(hint: Any, value: Any, source: str, complaints: Sequence[Complaint] = ()) -> Any:
    """Check a value by an annotation, records within it included.

    Args:
        hint: The annotation.
        value: What a file holds.
        source: What to call the file in messages.
        complaints: What is wrong besides.

    Returns:
        The value, with records in place of their dictionaries.

    Raises:
        RuleError: It names all keys that are unknown, missing, or break a rule.
    """
    try:
        checked = _adapter(hint).validate_python(value)
    except ValidationError as error:
        raise RuleError.of(source, [*complaints, *complaints_of(error, hint)]) from None
    if complaints:
        raise RuleError.of(source, complaints)
    return checked


def complaints_of(error: ValidationError, hint: Any) -> list[Complaint]:
    """Word what pydantic found wrong.

    Args:
        error: Pydantic's.
        hint: What the values were checked by.
    """
    details = error.errors(include_url=False)
    return [complaint for each in details for complaint in _complaints(each, hint)]


# Pydantic's kind of an error, and what completes the sentence "it must be ...".
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
    kind, place, context = detail["type"], detail["loc"], detail.get("ctx", {})
    key = ".".join(map(str, place))
    if kind == "value_error" and isinstance(error := context["error"], RuleError):
        return [complaint.under(key) for complaint in error.complaints]
    if kind == "missing" and isinstance(place[-1], int):
        return [must_be(key.rpartition(".")[0], detail["input"], "a longer list")]
    if kind == "missing":
        return [missing(key)]
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return [Complaint(key, known=_known_beside(place, hint))]
    if kind == "invalid_key":
        return [Complaint(key, "is no key: a key is text")]
    if kind == "rule":
        words = context["words"]
    elif kind == "literal_error":
        names = [each.strip("'") for each in context["expected"].replace(" or ", ", ").split(", ")]
        return [must_be_one_of(key, detail["input"], names)]
    else:
        words = _WORDS.get(kind) or detail["msg"].removeprefix("Input should be ")
    return [must_be(key, detail["input"], words)]


def _known_beside(place: tuple[int | str, ...], hint: Any) -> tuple[str, ...]:
    """The keys of the record that holds a place."""
    for part in place[:-1]:
        hint = bare(hint)
        if dataclasses.is_dataclass(hint):
            hint = hints_of(typing.cast(type, hint))[str(part)]
        else:  # the values of a dictionary, or the items of a list
            hint = typing.get_args(hint)[1 if typing.get_origin(hint) is dict else 0]
    return tuple(hints_of(bare(hint)))


def bare(hint: Any) -> Any:
    """An annotation without its rules, and without null."""
    while typing.get_origin(hint) in (Annotated, typing.Union, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not types.NoneType)
    return hint


@functools.cache
def _adapter(hint: Any) -> pydantic.TypeAdapter:
    config = None if dataclasses.is_dataclass(hint) else CONFIG
    as_files_give_it: Any = Annotated[hint, _Loosened()]  # pyright: ignore[reportInvalidTypeForm]
    return pydantic.TypeAdapter(as_files_give_it, config=config)


class _Loosened:
    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return _loosened(handler(source))


def _as_files_give_it(cls: type, source: Any, handler: Any) -> CoreSchema:
    return _loosened(handler(source))


def _loosened(schema: Any) -> Any:
    """Take a list for a tuple and a dictionary for a record, which pydantic's strict mode refuses."""
    if isinstance(schema, list):
        return [_loosened(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    loosened = {key: _loosened(value) for key, value in schema.items()}
    if schema.get("type") == "dataclass":
        loosened["strict"] = False
    if schema.get("type") == "tuple":
        return core_schema.no_info_before_validator_function(_tuple_of_list, typing.cast(CoreSchema, loosened))
    return loosened


def _tuple_of_list(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
