"""Rows as plain text, and the words for what is in records."""

from collections.abc import Sequence

from halonet.benchmark.record import Row, figures_of

# Words for the identifiers in records; `{unit}` is "pixel" or "pair".
HEADINGS = {
    "case": "case",
    "task": "pass",
    "name": "implementation",
    "milliseconds": "ms",
    "quartiles": "quartiles",
    "ratio": "times ours",
    "bound_percent": "of its bound",
    "growth": "per {unit}, to the first",
    "mebibytes": "MiB",
    "memory_ratio": "MiB, times ours",
    "size": "size",
    "kernel": "kernel",
    "tile": "tile, warps",
    "registers": "registers",
    "shared": "shared KiB",
    "programs_at_once": "programs at once",
    "issue_milliseconds": "issue ms",
    "bytes_milliseconds": "bytes ms",
    "products_milliseconds": "products ms",
    "exponentials_milliseconds": "exponentials ms",
}
FORMATS = {
    "milliseconds": "{:.2f}",
    "ratio": "{:.2f} x",
    "bound_percent": "{:.0f} %",
    "growth": "{:.2f}",
    "mebibytes": "{:.1f}",
    "memory_ratio": "{:.2f} x",
}
COLUMNS = ["case", "task", "name", "milliseconds", "quartiles", *list(FORMATS)[1:]]
TEXT_COLUMNS = COLUMNS[:3]


def heading(column: str, rows: Sequence[Row]) -> str:
    """Say what a column of these rows shows."""
    units = {row.facts["unit"] for row in rows if "unit" in row.facts}
    return HEADINGS[column].format(unit=" or ".join(sorted(units)))


def format_rows(rows: Sequence[Row]) -> str:
    """Format a table without empty columns, then list what was left out and why."""
    lines, first = [], {}
    for row in rows:
        for name in {**row.milliseconds, **row.mebibytes}:
            figures = figures_of(row, name, first)
            line = {"case": row.case, "task": row.task, "name": name}
            line |= {figure: FORMATS[figure].format(value) for figure, value in figures.items()}
            if name in row.milliseconds:
                low, _, high = row.milliseconds[name]
                line["quartiles"] = f"{low:.2f}-{high:.2f}"
            lines.append(line)
    columns = [column for column in COLUMNS if any(column in line for line in lines)]
    lines = [{column: heading(column, rows) for column in columns}, *lines]
    widths = {column: max(len(line.get(column, "")) for line in lines) for column in columns}
    text = []
    for line in lines:
        cells = ((line.get(column, ""), widths[column], column in TEXT_COLUMNS) for column in columns)
        text.append("  ".join(c.ljust(width) if left else c.rjust(width) for c, width, left in cells).rstrip())
    absent = dict.fromkeys(
        f"left out of {row.case}, {row.task}: {name}: {reason}" for row in rows for name, reason in row.absent.items()
    )
    return "\n".join([*text, *absent])
