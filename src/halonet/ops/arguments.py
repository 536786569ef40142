"""Checks of plain arguments, fast enough for every call of the operator.

Each raises `UserError` in the words of `halonet.complaints`.
"""

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from halonet.complaints import must_be_one_of, wrong

MOST = 2**60  # sums of a few such numbers fit into 64 bits
PAIR = "a whole number or a pair of them (rows, columns)"


def whole_number(name: str, value: Any, least: int, *, words: str = "a whole number") -> int:
    """Check an int, of Python or NumPy; `words` say in the message what the argument may be."""
    if isinstance(value, bool) or not isinstance(value, (int, Integral)):
        raise wrong(name, value, words)
    number = value if isinstance(value, int) else int(value)  # int() would fix a symbolic size
    if number < least:
        raise wrong(name, number, f"at least {least}")
    if number > MOST:
        raise wrong(name, number, "at most 2**60: sizes are counted in 64 bits")
    return number


def pair(name: str, value: Any, least: int) -> tuple[int, int]:
    """Expand an int to (rows, columns), and check both."""
    if not isinstance(value, (tuple, list)):
        both = whole_number(name, value, least, words=PAIR)
        return both, both
    if len(value) != 2:
        raise wrong(name, value, PAIR)
    return whole_number(f"{name}[0]", value[0], least), whole_number(f"{name}[1]", value[1], least)


def finite_number(name: str, value: Any) -> float:
    """Check a number that is neither NaN nor infinite."""
    if isinstance(value, bool) or not isinstance(value, (float, int, Real)):
        raise wrong(name, value, "a finite number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not -math.inf < number < math.inf:
        raise wrong(name, value, "a finite number")
    return number


def flag(name: str, value: Any) -> bool:
    """Check a bool; 0 and 1 are not accepted."""
    if not isinstance(value, bool):
        raise wrong(name, value, "true or false")
    return value


def choice(name: str, value: Any, known: Sequence[str]) -> str:
    """Check one of a few words; the message suggests the nearest."""
    if not isinstance(value, str) or value not in known:
        raise must_be_one_of(name, value, known).error()
    return value
