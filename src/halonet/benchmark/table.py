"""Rows as plain text."""

from collections.abc import Sequence

from halonet.benchmark.record import Row

HEAD = ["case", "pass", "contestant", "ms", "quartiles", "times ours", "of its bound", "per unit", "MiB", "times ours"]
LEFT = (0, 1, 2)


def format_rows(rows: Sequence[Row]) -> str:
    """Make a table of all contestants, without the columns that nobody fills, and the list of who took no part."""
    lines, first = [], {}
    for row in rows:
        for name in {**row.milliseconds, **row.mebibytes}:
            lines.append([row.case, row.task, name, *_times(row, name, first), *_memory(row, name)])
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


def _times(row: Row, name: str, first: dict[tuple[str, str], float]) -> list[str]:
    if name not in row.milliseconds:
        return [""] * 5
    low, median, high = row.milliseconds[name]
    ratio = median / row.milliseconds[row.baseline][1] if row.baseline in row.milliseconds else None
    share = row.bounds[name] / median if name in row.bounds else None
    growth = None
    if "units" in row.facts:
        per_unit = median / row.facts["units"]
        growth = per_unit / first.setdefault((row.task, name), per_unit)
    return [
        f"{median:.2f}",
        f"{low:.2f}-{high:.2f}",
        "" if ratio is None else f"{ratio:.2f} x",
        "" if share is None else f"{100 * share:.0f} %",
        "" if growth is None else f"{growth:.2f}",
    ]


def _memory(row: Row, name: str) -> list[str]:
    if name not in row.mebibytes:
        return ["", ""]
    own = row.mebibytes.get(row.baseline)
    return [f"{row.mebibytes[name]:.1f}", f"{row.mebibytes[name] / own:.2f} x" if own else ""]
