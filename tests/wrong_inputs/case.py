"""Test cases, and the valid and wrong values of fields."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from halonet.errors import UserError, UserNote


@dataclass(frozen=True)
class Case:
    """An input and its expected outcome.

    Attributes:
        text: A description of the input.
        run: Passes the input to halonet; it may write into the given empty folder.
        expected: Parts of the error message; empty if the input is valid.
        noted: Parts of the note, if the input is accepted with a note.
    """

    text: str
    run: Callable[[Path], object]
    expected: tuple[str, ...] = ()
    noted: tuple[str, ...] = ()


def failure(case: Case, folder: Path) -> str | None:
    """Run a case; returns how its outcome differs from the expected one, or None."""
    try:
        notes = _run(case, folder)
    except UserError as error:
        message = str(error)
        if not case.expected:
            return f"a valid input was refused: {message}"
        if lacking := [part for part in case.expected if part not in message]:
            return f"the message lacks {lacking}: {message}"
        if len(message) > 3000:
            return f"the message has {len(message):,} letters"
        return None
    except Exception as error:  # a user would see a traceback
        return f"{type(error).__name__}: {error}"
    if case.expected:
        return "it was accepted"
    if lacking := [part for part in case.noted if part not in notes]:
        return f"it was accepted, and the notes lack {lacking}: {notes!r}"
    return None


def _run(case: Case, folder: Path) -> str:
    """Run a case and return its notes; any other warning is an error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error")
        warnings.simplefilter("always", UserNote)
        case.run(folder)
    return "\n".join(str(warning.message) for warning in caught)


@dataclass(frozen=True)
class Field:
    """A field's valid values, and its wrong ones with the expected message."""

    right: Sequence[Any]
    wrong: Sequence[tuple[Any, str]]
    is_text: bool = False


NAN, INFINITY = float("nan"), float("inf")


def whole(least: int, most: int, words: str, *, right: Sequence[int] | None = None, null: bool = False) -> Field:
    """An int from `least` to `most`; `right` are values that fit the rest of the input."""
    range_ = [(value, words) for value in (least - 1, most + 1, -(10**30), 10**30)]
    type_ = [(value, "a whole number") for value in (True, 1.5, 2.0, "3", "many", [3], {"a": 1}, NAN)]
    nothing = [] if null else [(None, "a whole number")]
    return Field([least, most] if right is None else right, [*range_, *type_, *nothing])


def real(wrong: Sequence[float], words: str, *, right: Sequence[float], null: bool = False) -> Field:
    """A float; `wrong` are values outside its range."""
    type_ = [(value, "a finite number") for value in (True, "0.1", "x", [0.1], NAN, INFINITY, -INFINITY, 10**400)]
    nothing = [] if null else [(None, "a finite number")]
    return Field(right, [*((value, words) for value in wrong), *type_, *nothing])


def choice(*names: str, null: bool = False) -> Field:
    """One of a few names."""
    wrong = ["", "other", f"{names[0]}x", 3, True, [names[0]], *([] if null else [None])]
    return Field(names, [(value, f"{', '.join(names[:-1])} or {names[-1]}") for value in wrong], is_text=True)


def flag() -> Field:
    """True or false."""
    return Field([True, False], [(value, "true or false") for value in (0, 1, "true", None, [True])])


def text(*, right: Sequence[Any], null: bool = False, empty: bool = False) -> Field:
    """A text."""
    type_ = [(value, "text") for value in (3, True, ["a"], {"a": 1}, *(() if null else (None,)))]
    content = [(value, "10,000 letters") for value in ("a\0b", "x" * 10_001, *(() if empty else ("",)))]
    return Field(right, type_ + content, is_text=True)


def pick(random: Random, fields: dict[str, Field], share_right: float = 0.25) -> tuple[str, Any, tuple[str, ...]]:
    """Draw a field's key, a value, and the expected parts of the message (none for a valid value)."""
    key = random.choice(list(fields))
    if random.random() < share_right:
        return key, random.choice(list(fields[key].right)), ()
    value, words = random.choice(list(fields[key].wrong))
    return key, value, (key, words)


def shortened(value: Any) -> str:
    """A value on one short line."""
    return ascii(value)[:80]
