"""Checks of plain arguments: each returns the value it was given, or says what is wrong with it."""

import difflib
import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from halonet.errors import UserError

MOST = 2**60  # sums of a few such numbers fit into 64 bits


def whole_number(name: str, value: Any, least: int, *, or_pair: bool = False) -> int:
    """Check an int, of Python or NumPy.

    Args:
        name: The argument's name, for the message.
        value: What was given.
        least: The smallest value allowed.
        or_pair: Whether a pair would have been allowed too, for the message.

    Raises:
        UserError: If it is no int, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, Integral)):
        kind = "an int or a pair of ints (rows, columns)" if or_pair else "an int"
        raise UserError(f"{name} is {_shown(value)}; it must be {kind}")
    number = value if isinstance(value, int) else int(value)  # a size that a trace leaves open is an int as it is
    if number < least:
        raise UserError(f"{name} is {_shown(number)}; it must be at least {least}")
    if number > MOST:
        raise UserError(f"{name} is {_shown(number)}; it must be at most 2**60: sizes are counted in 64 bits")
    return number


def pair(name: str, value: Any, least: int) -> tuple[int, int]:
    """Expand an int to (rows, columns), and check both.

    Args:
        name: The argument's name, for the message.
        value: One int for both axes, or (rows, columns).
        least: The smallest value allowed.

    Raises:
        UserError: If it is not an int or a pair of ints, or is out of range.
    """
    if not isinstance(value, (tuple, list)):
        both = whole_number(name, value, least, or_pair=True)
        return both, both
    if len(value) != 2:
        raise UserError(f"{name} is {_shown(value)}; it must be an int or a pair of ints (rows, columns)")
    return whole_number(f"{name}[0]", value[0], least), whole_number(f"{name}[1]", value[1], least)


def finite_number(name: str, value: Any) -> float:
    """Check a number that is neither NaN nor infinite.

    Raises:
        UserError: If it is no number, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, (float, int, Real)):
        raise UserError(f"{name} is {_shown(value)}; it must be a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not -math.inf < number < math.inf:
        raise UserError(f"{name} is {_shown(value)}; it must be finite")
    return number


def flag(name: str, value: Any) -> bool:
    """Check a bool.

    Raises:
        UserError: If it is anything else, though it may be true or false.
    """
    if not isinstance(value, bool):
        raise UserError(f"{name} is {_shown(value)}; it must be True or False")
    return value


def choice(name: str, value: Any, known: Sequence[str]) -> str:
    """Check one of a few words.

    Raises:
        UserError: If it is not one of them; the message has the nearest.
    """
    if not isinstance(value, str) or value not in known:
        nearest = difflib.get_close_matches(str(value)[:80], known, n=1, cutoff=0.5)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise UserError(f"{name} is {_shown(value)}; it must be one of {', '.join(map(repr, known))}.{hint}")
    return value


def _shown(value: Any) -> str:
    """Print a value on one short line."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an int of {value.bit_length()} bits"
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
