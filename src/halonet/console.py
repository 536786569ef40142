"""What the commands print."""

import json
from typing import Any

from halonet.errors import UserError


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
        rows: As many cells each.
    """
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
