"""What the commands print."""

import json
import sys
from typing import Any

from halonet_cli.parser import UsageError


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
    """Print JSON; raise a `UsageError` if a number is NaN or infinite, which JSON does not have."""
    try:
        text = json.dumps(value, indent=2, allow_nan=False)
    except ValueError as error:
        raise UsageError("a figure is NaN or infinite, which JSON cannot express: run it without --json") from error
    print(text)


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """Print a table whose columns are as wide as they must be."""
    lines = [[printable(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in lines) for column in range(len(head))]
    for row in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def tell_unreadable(rows: list[dict[str, Any]]) -> int:
    """Print which of the images a command could not read; the status is 1 if there are any."""
    errors = [row["error"] for row in rows if "error" in row]
    for error in errors:
        print(f"halonet: {printable(error)}", file=sys.stderr)
    if errors:
        print(f"halonet: {len(errors)} of {len(rows)} images could not be read", file=sys.stderr)
    return 1 if errors else 0
