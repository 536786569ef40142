"""What the commands print."""


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """Print a table whose columns are as wide as they must be.

    Args:
        head: A heading for each column.
        rows: As many cells each.
    """
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
