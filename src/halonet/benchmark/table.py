"""Rows as plain text."""

from collections.abc import Sequence

from halonet.benchmark.record import Row, figures_of

HEAD = ["case", "pass", "contestant", "ms", "quartiles", "times ours", "of its bound", "per unit", "MiB", "times ours"]
LEFT = (0, 1, 2)


def format_rows(rows: Sequence[Row]) -> str:
    """Make a table of all contestants, without the columns that nobody fills, and the list of who took no part."""
    lines, first = [], {}
    for row in rows:
        for name in {**row.milliseconds, **row.mebibytes}:
            lines.append([row.case, row.task, name, *_cells(row, name, first)])
    filled = [index for index in range(len(HEAD)) if any(line[index] for line in lines)]
    units = {row.facts["unit"] for row in rows if "unit" in row.facts}
    head = [name.replace("unit", " or ".join(sorted(units))) for name in HEAD]
    table = [[line[index] for index in filled] for line in [head, *lines]]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    text = []
    for line in table:
        cells = zip(line, widths, filled, strict=True)
        text.append("  ".join(c.ljust(w) if index in LEFT else c.rjust(w) for c, w, index in cells).rstrip())
    absent = dict.fromkeys(
        f"left out of {row.case}, {row.task}: {name}: {reason}" for row in rows for name, reason in row.absent.items()
    )
    return "\n".join([*text, *absent])


def _cells(row: Row, name: str, first: dict[tuple[str, str], float]) -> list[str]:
    figures = figures_of(row, name, first)
    low, _, high = row.milliseconds.get(name, (0.0, 0.0, 0.0))

    def show(kind: str, form: str) -> str:
        return form.format(figures[kind]) if kind in figures else ""

    return [
        show("ms", "{:.2f}"),
        show("ms", f"{low:.2f}-{high:.2f}"),
        show("times ours", "{:.2f} x"),
        show("of its bound", "{:.0f} %"),
        show(f"for each {row.facts.get('unit')}, to the first", "{:.2f}"),
        show("MiB", "{:.1f}"),
        show("MiB, times ours", "{:.2f} x"),
    ]
