"""How a complaint about a value reads: the value, the rule and the remedy, on one line."""

import dataclasses
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from halonet.errors import UserError, nearest_name, unknown_name

MOST_SHOWN = 20  # complaints of one file; more of them help nobody


@dataclass(frozen=True)
class Complaint:
    """One value that breaks a rule.

    Attributes:
        key: The value's dotted key; empty for the whole.
        text: What follows the key, such as "is 0, but must be at least 1".
        known: The valid keys, if the key itself is wrong.
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
        """An error with this complaint alone."""
        return RuleError.of("", [self])

    def under(self, section: str) -> "Complaint":
        """The same complaint with its key prefixed by a section."""
        return dataclasses.replace(self, key=".".join(filter(None, (section, self.key))))


class RuleError(UserError):
    """Values break rules; the message names the source and every complaint."""

    complaints: tuple[Complaint, ...] = ()
    source = ""

    @classmethod
    def of(cls, source: str, complaints: Sequence[Complaint]) -> "RuleError":
        """Combine complaints about one source: a single one on one line, several on a line each."""
        prefix = f"{source}: " if source else ""
        if len(complaints) == 1:
            error = cls(f"{prefix}{complaints[0]}")
        else:
            lines = [f"  {complaint}" for complaint in complaints[:MOST_SHOWN]]
            if len(complaints) > MOST_SHOWN:
                lines.append(f"  and {len(complaints) - MOST_SHOWN} more")
            error = cls("\n".join([f"{prefix}{len(complaints)} mistakes", *lines]))
        error.complaints, error.source = tuple(complaints), source
        return error


def must_be(key: str, value: Any, words: str) -> Complaint:
    """A complaint that a value is not what it must be."""
    return Complaint(key, f"is {shown(value)}, but must be {words}")


def must_be_one_of(key: str, value: Any, names: Sequence[str]) -> Complaint:
    """A complaint about an unknown name, with the nearest known one."""
    hint = nearest_name(value, names) if isinstance(value, str) else ""
    return Complaint(key, f"is {shown(value)}, but must be {alternatives(names)}{'.' + hint if hint else ''}")


def wrong(key: str, value: Any, words: str) -> RuleError:
    """The error of one `must_be` complaint."""
    return must_be(key, value, words).error()


def missing(key: str) -> Complaint:
    """A complaint about a missing key."""
    return Complaint(key, "is missing: add it")


def alternatives(names: Sequence[Any]) -> str:
    """Join names as "a, b or c"."""
    *others, last = [str(name) for name in names]
    return f"{', '.join(others)} or {last}" if others else last


def shown(value: Any) -> str:
    """Show a value on one line, shortened if it is long."""
    try:
        return " ".join(_Shown().repr(value).split())
    except ValueError:  # Python refuses to print integers of over 4,300 digits
        return "a number of thousands of digits" if isinstance(value, int) else f"a {type(value).__name__}"


class _Shown(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 80
        self.maxlong = 40
