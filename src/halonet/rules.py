"""Rules for values that come from outside, and the checks of plain dataclasses by them.

A rule annotates the field that it checks, as in `depth: Annotated[int, within(least=1, most=512)]`. `check_fields`
checks a plain dataclass by the annotations of its fields; `halonet.schemas` lets pydantic check them.
"""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union

from halonet.complaints import Complaint, RuleError, alternatives, missing, must_be, must_be_one_of


@dataclass(frozen=True)
class Rule:
    """What a value must be, beyond its type.

    Attributes:
        words: Completes the sentence "it must be ...".
        holds: Whether a value of the right type obeys the rule.
        covers_type: Whether the words also describe the type, and so replace the complaint about a wrong type.
    """

    words: str
    holds: Callable[[Any], bool]
    covers_type: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        """Pydantic's hook: check the rule after the type."""
        from pydantic_core import PydanticCustomError, core_schema

        def check(value: Any) -> Any:
            if not self.holds(value):
                raise PydanticCustomError("rule", "{words}", {"words": self.words})
            return value

        return core_schema.no_info_after_validator_function(check, handler(source))


def _number(limit: int | float) -> str:
    return f"{limit:,}" if isinstance(limit, int) else repr(limit)


def within(
    *,
    least: int | float | None = None,
    above: int | float | None = None,
    most: int | float | None = None,
    below: int | float | None = None,
) -> Rule:
    """A number in a range; `least` and `most` belong to it, `above` and `below` do not."""
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
    return Rule(alternatives(names), lambda value: value in names, covers_type=True)


def length(least: int, most: int, things: str) -> Rule:
    """A list of `least` to `most` items; `things` is the word for them."""
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

    Fields may be int, float, str, bool, Literal, tuples of these, or optional ones, with rules in `Annotated`. Ints are
    converted to floats and lists (from YAML or JSON) to tuples.

    Raises:
        RuleError: Some fields break their rules; it names them all.
    """
    names = [field.name for field in dataclasses.fields(instance)]
    checked = check_values(type(instance), {name: getattr(instance, name) for name in names})
    for name, value in checked.items():
        object.__setattr__(instance, name, value)


def check_together(instance: Any, rules: dict[str, tuple[bool, str]]) -> None:
    """Check rules that involve several fields, in a `__post_init__`.

    Args:
        instance: The dataclass.
        rules: For each field's dotted key, whether its rule holds, and what the field must be.

    Raises:
        RuleError: Some rules are broken; it names them all.
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
        **arguments: The value and annotation of each, such as `batch_size=(batch_size, Count)`.

    Raises:
        RuleError: Some break their rules; it names them all.
    """
    complaints = []
    for name, (value, hint) in arguments.items():
        _, found = check_value(hint, value, name)
        complaints += found
    if complaints:
        raise RuleError.of("", complaints)


def build(cls: type[FieldsT], values: Any) -> FieldsT:
    """Make a dataclass that checks its fields from a dictionary; an instance is returned unchanged.

    Raises:
        RuleError: Some keys are unknown or missing, or values break a rule; it names them all.
    """
    if isinstance(values, cls):
        return values
    if not isinstance(values, dict):
        raise RuleError.of(cls.__name__, [must_be("", values, "a section with keys of its own")])
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, cls))}
    lacking = [missing(name) for name, field in fields.items() if name not in values and _is_required(field)]
    return cls(**check_values(cls, values, lacking))


def check_values(cls: type, values: dict[Any, Any], complaints: Sequence[Complaint] = ()) -> dict[str, Any]:
    """Check values for some of a dataclass's fields, without making an instance.

    Args:
        cls: The dataclass.
        values: By field name.
        complaints: Earlier complaints, to be raised with the new ones.

    Returns:
        The values, converted as `check_fields` does.

    Raises:
        RuleError: Some keys are unknown or values break a rule; it names them all.
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
    """Check a value by an annotation; returns it, converted as `check_fields` does, and the complaints about it."""
    if hint is None:
        return value, [] if value is None else [must_be(key, value, "null")]
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        given = value
        value, complaints = check_value(parts[0], given, key)
        rules = [rule for rule in parts[1:] if isinstance(rule, Rule)]
        if value is not None and not complaints:
            complaints = [must_be(key, given, rule.words) for rule in rules if not rule.holds(value)][:1]
        elif complaints and rules and rules[0].covers_type:
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
        return value, []  # checked by its own constructor
    if not _is_of(hint, value):
        return value, [must_be(key, value, _TYPES[hint])]
    return float(value) if hint is float else value, []


@functools.cache
def hints_of(cls: type) -> dict[str, Any]:
    """The annotations of a dataclass's fields, rules included."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


_TYPES = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}


def _is_of(hint: type, value: Any) -> bool:
    """Whether a value has exactly this type: bool, NaN and infinity are not numbers."""
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
    checked = [
        check_value(hint, item, f"{key}.{index}") for index, (hint, item) in enumerate(zip(items, value, strict=True))
    ]
    return tuple(item for item, _ in checked), [complaint for _, complaints in checked for complaint in complaints]


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
