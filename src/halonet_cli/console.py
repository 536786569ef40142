"""What the commands print."""

import json
import sys
from typing import Any


def printable(text: str) -> str:
    """Make a text harmless to print on one line, see `halonet.console.printable`."""
    if text.isprintable():
        return text
    from halonet.console import printable as escaped

    return escaped(text)


def tell(message: str) -> None:
    """Print a message about the command to standard error; its lines stay lines."""
    print("\n".join(printable(line) for line in f"halonet: {message}".split("\n")), file=sys.stderr)


def survive_any_encoding() -> None:
    """Let standard output and error escape what their encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]


def print_json(value: Any) -> None:
    """Print JSON.

    Args:
        value: Numbers, texts, lists and dictionaries.

    Raises:
        UserError: A number is NaN or infinite, which JSON does not have.
    """
    try:
        text = json.dumps(value, indent=2, allow_nan=False)
    except ValueError as error:
        from halonet.errors import UserError

        raise UserError("a figure is NaN or infinite, which JSON cannot say: look at it without --json") from error
    print(text)


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """Print a table whose columns are as wide as they must be.

    Args:
        head: A heading for each column.
        rows: As many cells each; any text.
    """
    lines = [[printable(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in lines) for column in range(len(head))]
    for row in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
