"""Rows as a picture: times over ours, or time per unit where rows show growth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from halonet.benchmark.record import Row
from halonet.engine.files import PICTURES, check_output_file, explain_full_disk


def check_file(path: Path) -> None:
    """Refuse a file that cannot be drawn to, and a missing matplotlib, before anything is measured.

    Raises:
        UserError: If the suffix is unknown or the file cannot be written.
    """
    import matplotlib  # noqa: F401

    check_output_file(path, PICTURES)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw one panel for each pass, on a logarithmic scale, with quartiles as bars, to a file that `check_file` passes.

    Rows with `unit` are drawn as time per unit, others as time over that of ours.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    growing = any("unit" in row.facts for row in rows)
    tasks = list(dict.fromkeys(row.task for row in rows))
    names = list(dict.fromkeys(name for row in rows for name in row.milliseconds))
    cases = list(dict.fromkeys(row.case for row in rows))
    height = 1.6 + (2.6 if growing else 0.22 * len(cases) * max(len(names) / 3, 1))
    figure = Figure(figsize=(4.6 * len(tasks) + 0.6, max(height, 3.2)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(tasks), squeeze=False, sharex=True, sharey=True)[0]
    for panel, task in zip(panels, tasks, strict=True):
        chosen = [row for row in rows if row.task == task]
        (_draw_growth if growing else _draw_ratios)(panel, chosen, names, cases)
        panel.set_title(task, loc="left", fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y" if growing else "x", which="major", color="0.9", linewidth=0.8)
        panel.set_axisbelow(True)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), frameon=False, fontsize=8)
    # Without a date, the same figures give the same bytes.
    with explain_full_disk(path):
        figure.savefig(path, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_ratios(panel: Any, rows: list[Row], names: list[str], cases: list[str]) -> None:
    for index, name in enumerate(names):
        points = [(cases.index(row.case), row) for row in rows if name in row.milliseconds]
        over = [[each / row.milliseconds[row.baseline][1] for each in row.milliseconds[name]] for _, row in points]
        medians = [median for _, median, _ in over]
        spread = [[median - low for low, median, _ in over], [high - median for _, median, high in over]]
        # Implementations of a case lie one below the other, so that their bars stay apart.
        places = [place + 0.7 * ((index + 0.5) / len(names) - 0.5) for place, _ in points]
        panel.errorbar(medians, places, xerr=spread, fmt="o", markersize=4, linewidth=1, color=f"C{index}", label=name)
    panel.axvline(1, color="0.5", linewidth=0.8)
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter("{x:g} x")
    panel.set_yticks(range(len(cases)), cases, fontsize=8)
    panel.set_ylim(len(cases) - 0.5, -0.5)
    panel.set_xlabel("time over ours", fontsize=8)


def _draw_growth(panel: Any, rows: list[Row], names: list[str], cases: list[str]) -> None:
    for index, name in enumerate(names):
        points = [(cases.index(row.case), row) for row in rows if name in row.milliseconds]
        per_unit = [[1e6 * each / row.facts["units"] for each in row.milliseconds[name]] for _, row in points]
        medians = [median for _, median, _ in per_unit]
        spread = [[median - low for low, median, _ in per_unit], [high - median for _, median, high in per_unit]]
        places = [place for place, _ in points]
        panel.errorbar(places, medians, yerr=spread, fmt="o-", markersize=4, linewidth=1, color=f"C{index}", label=name)
    panel.set_yscale("log")
    panel.yaxis.set_major_formatter("{x:g}")
    panel.set_xticks(range(len(cases)), cases, fontsize=8, rotation=30, ha="right")
    panel.set_ylabel(f"nanoseconds for each {rows[0].facts['unit']}", fontsize=8)
