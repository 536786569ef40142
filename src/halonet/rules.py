"""How values that come from outside are checked, and how a complaint reads.

A rule stands beside the field that it checks, as in `depth: Annotated[int, within(least=1, most=512)]`. `check_fields`
checks a plain dataclass by the annotations of its fields; `halonet.schemas` has pydantic check them.
"""

import dataclasses
import functools
import math
import reprlib
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union

from halonet.errors import UserError, nearest_name, unknown_name

MOST_SHOWN = 20  # complaints of one file; more of them help nobody


@dataclass(frozen=True)
class Rule:
    """What a value must be, beyond its type.

    Attributes:
        words: What completes the sentence "it must be ...".
        holds: Whether a value of the right type keeps the rule.
        tells_type: Whether the words say enough for a value of another type too.
    """

    words: str
    holds: Callable[[Any], bool]
    tells_type: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        """Let pydantic check the rule after the type; only pydantic calls this."""
        from pydantic_core import PydanticCustomError, core_schema

        def check(value: Any) -> Any:
            if not self.holds(value):
                raise PydanticCustomError("rule", "{words}", {"words": self.words})
            return value

        return core_schema.no_info_after_validator_function(check, handler(source))


@dataclass(frozen=True)
class Complaint:
    """One value that breaks a rule.

    Attributes:
        key: The value's dotted key; empty for the whole.
        text: What follows the key, such as "is 0, but must be at least 1".
        known: The keys that there are beside it, if the key itself is what is wrong.
    """

    key: str
    text: str = ""
    known: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.known:
            section, dot, name = self.key.rpartition(".")
            return unknown_name("key", name, self.known, section + dot)
        return f"{self.key or 'it'} {self.text}"

    def error(self) -> "RuleError":
        """The error that says nothing else."""
        return RuleError.of("", [self])

    def under(self, section: str) -> "Complaint":
        """The same complaint, its key counted from outside of the section."""
        return dataclasses.replace(self, key=".".join(filter(None, (section, self.key))))


class RuleError(UserError):
    """Values break rules; the message names the source and every complaint."""

    complaints: tuple[Complaint, ...] = ()

    @classmethod
    def of(cls, source: str, complaints: Sequence[Complaint]) -> "RuleError":
        """Word complaints about one source, if it has a name: one on one line, more on a line each."""
        prefix = f"{source}: " if source else ""
        if len(complaints) == 1:
            error = cls(f"{prefix}{complaints[0]}")
        else:
            lines = [f"  {complaint}" for complaint in complaints[:MOST_SHOWN]]
            if len(complaints) > MOST_SHOWN:
                lines.append(f"  and {len(complaints) - MOST_SHOWN} more")
            error = cls("\n".join([f"{prefix}{len(complaints)} mistakes", *lines]))
        error.complaints = tuple(complaints)
        return error


def must_be(key: str, value: Any, words: str) -> Complaint:
    """Word the complaint about a value."""
    return Complaint(key, f"is {shown(value)}, but must be {words}")


def must_be_one_of(key: str, value: Any, names: Sequence[str]) -> Complaint:
    """Word the complaint about a name, with the nearest of those that there are."""
    hint = nearest_name(value, names) if isinstance(value, str) else ""
    return Complaint(key, f"is {shown(value)}, but must be {alternatives(names)}{'.' + hint if hint else ''}")


def wrong(key: str, value: Any, words: str) -> "RuleError":
    """Make the error about one value, see `must_be`."""
    return must_be(key, value, words).error()


def missing(key: str) -> Complaint:
    """Word the complaint about a key that is not there."""
    return Complaint(key, "is missing: add it")


def alternatives(names: Sequence[Any]) -> str:
    """List what something may be."""
    *others, last = [str(name) for name in names]
    return f"{', '.join(others)} or {last}" if others else last


def _number(limit: int | float) -> str:
    return f"{limit:,}" if isinstance(limit, int) else repr(limit)


def within(
    *,
    least: int | float | None = None,
    above: int | float | None = None,
    most: int | float | None = None,
    below: int | float | None = None,
) -> Rule:
    """A number in a range.

    Args:
        least: The smallest number allowed.
        above: Every number allowed is larger.
        most: The largest number allowed.
        below: Every number allowed is smaller.
    """
    if least is not None and most is not None:
        words = f"from {_number(least)} to {_number(most)}"
    else:
        limits = {"at least": least, "above": above, "at most": most, "below": below}
        words = " and ".join(f"{name} {_number(limit)}" for name, limit in limits.items() if limit is not None)
    return Rule(
        words,
        lambda value: (
            (least is None or value >= least)
            and (above is None or value > above)
            and (most is None or value <= most)
            and (below is None or value < below)
        ),
    )


def one_of(*names: str) -> Rule:
    """One of a few names."""
    return Rule(alternatives(names), lambda value: value in names, tells_type=True)


def length(least: int, most: int, things: str) -> Rule:
    """A list of so many things."""
    return Rule(f"{least:,} to {most:,} {things}", lambda value: least <= len(value) <= most)


LONGEST_TEXT = 10_000
TEXT = Rule(
    f"at most {LONGEST_TEXT:,} letters, without NUL",
    lambda value: len(value) <= LONGEST_TEXT and "\0" not in value,
)
FILLED_TEXT = Rule(f"text of 1 letter or more, {TEXT.words}", lambda value: bool(value) and TEXT.holds(value))

Text = Annotated[str, TEXT]
FilledText = Annotated[str, FILLED_TEXT]
Probability = Annotated[float, within(least=0, most=1)]
Side = Annotated[int, within(least=1, most=16_384)]
"""A side of an image in pixels."""
Channels = Annotated[int, within(least=1, most=65_536)]
Count = Annotated[int, within(least=1, most=10**9)]
Workers = Annotated[int, within(least=0, most=1_024)]

FieldsT = TypeVar("FieldsT")


def check_fields(instance: Any) -> None:
    """Check the fields of a frozen dataclass by their annotations, in its `__post_init__`.

    Fields may be int, float, str, bool, Literal, tuples of these and any of them or None, with rules in `Annotated`.
    An int passes for a float; a list, as YAML and JSON give it, becomes a tuple.

    Args:
        instance: The dataclass.

    Raises:
        RuleError: It names all fields that break their rules.
    """
    names = [field.name for field in dataclasses.fields(instance)]
    checked = check_values(type(instance), {name: getattr(instance, name) for name in names})
    for name, value in checked.items():
        object.__setattr__(instance, name, value)


def check_together(instance: Any, rules: dict[str, tuple[bool, str]]) -> None:
    """Check that fields fit one another, in a `__post_init__`.

    Args:
        instance: The dataclass.
        rules: By a field's dotted key, whether it fits, and what it must be.

    Raises:
        RuleError: It names all that do not fit.
    """
    complaints = [
        must_be(key, functools.reduce(getattr, key.split("."), instance), words)
        for key, (fits, words) in rules.items()
        if not fits
    ]
    if complaints:
        raise RuleError.of(type(instance).__name__, complaints)


def check_arguments(**arguments: tuple[Any, Any]) -> None:
    """Check the arguments of a call.

    Args:
        **arguments: By name, the value and its annotation, such as `batch_size=(batch_size, Count)`.

    Raises:
        RuleError: It names all that break their rules.
    """
    complaints = [each for name, (value, hint) in arguments.items() for each in check_value(hint, value, name)[1]]
    if complaints:
        raise RuleError.of("", complaints)


def build(cls: type[FieldsT], values: Any) -> FieldsT:
    """Make a dataclass of the dictionary of its fields, as a file holds it.

    Args:
        cls: A dataclass that checks its fields.
        values: The dictionary; an instance is returned as it is.

    Raises:
        RuleError: It names all keys that are unknown, missing or break a rule.
    """
    if isinstance(values, cls):
        return values
    if not isinstance(values, dict):
        raise RuleError.of(cls.__name__, [must_be("", values, "a section with keys of its own")])
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, cls))}
    lacking = [missing(name) for name, field in fields.items() if name not in values and _is_required(field)]
    return cls(**check_values(cls, values, lacking))


def check_values(cls: type, values: dict[Any, Any], complaints: Sequence[Complaint] = ()) -> dict[str, Any]:
    """Check some of a dataclass's fields, without making one.

    Args:
        cls: The dataclass.
        values: By the fields' names.
        complaints: What is wrong besides.

    Returns:
        The same, lists as tuples and ints as floats where the annotations say so.

    Raises:
        RuleError: It names all keys that are unknown or break a rule.
    """
    hints, checked, complaints = hints_of(cls), {}, list(complaints)
    for name, value in values.items():
        if name in hints:
            checked[name], found = check_value(hints[name], value, name)
            complaints += found
        else:
            complaints.append(Complaint(str(name), known=tuple(hints)))
    if complaints:
        raise RuleError.of(cls.__name__, complaints)
    return checked


def check_value(hint: Any, value: Any, key: str) -> tuple[Any, list[Complaint]]:
    """Check a value by an annotation.

    Args:
        hint: The annotation.
        value: What it is for.
        key: What to call it.

    Returns:
        The value, a list as a tuple and an int as a float where the annotation says so, and what is wrong with it.
    """
    if hint is None:
        return value, [] if value is None else [must_be(key, value, "null")]
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        given = value
        value, complaints = check_value(parts[0], given, key)
        rules = [rule for rule in parts[1:] if isinstance(rule, Rule)]
        if value is not None and not complaints:
            complaints = [must_be(key, given, rule.words) for rule in rules if not rule.holds(value)][:1]
        elif complaints and rules and rules[0].tells_type:
            complaints = [must_be(key, given, rules[0].words)]
        return value, complaints
    if origin in (Union, types.UnionType):
        (inner,) = (part for part in parts if part is not types.NoneType)
        if value is None:
            return None, []
        value, complaints = check_value(inner, value, key)
        return value, [Complaint(each.key, f"{each.text}, or null") for each in complaints]
    if origin is Literal:
        holds = type(value) is type(parts[0]) and value in parts
        return value, [] if holds else [must_be_one_of(key, value, [str(part) for part in parts])]
    if origin is tuple:
        return _check_items(parts, value, key)
    if hint is Any or dataclasses.is_dataclass(hint) or typing.get_origin(hint) is dict:
        return value, []  # checked where it is made
    if not _is_of(hint, value):
        return value, [must_be(key, value, _TYPES[hint])]
    return float(value) if hint is float else value, []


def shown(value: Any) -> str:
    """Show a value on one line, cut short if it is long."""
    try:
        return " ".join(_Shown().repr(value).split())
    except ValueError:  # Python refuses to print integers of over 4,300 digits
        return "a number of thousands of digits" if isinstance(value, int) else f"a {type(value).__name__}"


@functools.cache
def hints_of(cls: type) -> dict[str, Any]:
    """The annotations of a dataclass's fields, rules included."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


_TYPES = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}


class _Shown(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 80
        self.maxlong = 40


def _is_of(hint: type, value: Any) -> bool:
    """Whether a value has a type exactly: a bool is no number, and NaN and infinity are none either."""
    if hint is float:
        try:
            return type(value) in (int, float) and math.isfinite(value)
        except OverflowError:  # an int that no float can hold
            return False
    return type(value) is hint


def _check_items(parts: tuple[Any, ...], value: Any, key: str) -> tuple[Any, list[Complaint]]:
    if not isinstance(value, list | tuple):
        return value, [must_be(key, value, "a list")]
    items = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
    if len(items) != len(value):
        return value, [must_be(key, value, f"a list of {len(items)}")]
    places = enumerate(zip(items, value, strict=True))
    checked = [check_value(hint, item, f"{key}.{index}") for index, (hint, item) in places]
    return tuple(item for item, _ in checked), [each for _, complaints in checked for each in complaints]


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
