"""What the commands print."""

import json
import sys
import unicodedata
from typing import Any

from halonet.errors import UserError

# Characters that turn the direction of the text after them, as in a name that reads "gpj.exe".
DIRECTIONS = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """Make a name from outside harmless: a file, a class or a checkpoint may be called anything.

    Args:
        text: Any text.

    Returns:
        The text on one line, with control characters (escape codes, line breaks), lone surrogates and marks that
        turn the direction of writing replaced by their escapes.
    """
    return "".join(_escaped(character) if _is_harmful(character) else character for character in text)


def survive_any_encoding() -> None:
    """Let standard output and error escape what their encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]


def print_json(value: Any) -> None:
    """Print JSON.

    Args:
        value: Of numbers, texts, lists and dictionaries.

    Raises:
        UserError: A number is NaN or infinite, which JSON does not have.
    """
    try:
        print(json.dumps(value, indent=2, allow_nan=False))
    except ValueError as error:
        raise UserError("a figure is NaN or infinite, which JSON cannot say: look at it without --json") from error


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """Print a table whose columns are as wide as they must be.

    Args:
        head: A heading for each column.
        rows: As many cells each; of any text.
    """
    lines = [[printable(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in lines) for column in range(len(head))]
    for row in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _is_harmful(character: str) -> bool:
    return character in DIRECTIONS or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
