"""Rows as a picture: times over ours, or time per unit where rows show growth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from halonet.benchmark.record import Row
from halonet.engine.files import PICTURES, check_output_file, explain_full_disk


def check_file(path: Path) -> None:
    """Refuse a file that cannot be drawn to, before anything is measured."""
    check_output_file(path, PICTURES)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw one panel for each pass, on a logarithmic scale, with quartiles as bars, to a file that `check_file` passes.

    Rows with `unit` are drawn as time per unit, others as time over that of ours.
    """
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
        _draw(panel, chosen, names, cases, growing)
        panel.set_title(task, loc="left", fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y" if growing else "x", which="major", color="0.9", linewidth=0.8)
        panel.set_axisbelow(True)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), frameon=False, fontsize=8)
    # Without a date, the same figures give the same bytes.
    with explain_full_disk(path):
        figure.savefig(path, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw(panel: Any, rows: list[Row], names: list[str], cases: list[str], growing: bool) -> None:
    for index, name in enumerate(names):
        chosen = [row for row in rows if name in row.milliseconds]
        # In milliseconds over ours, or nanoseconds per unit.
        scales = [1e6 / row.facts["units"] if growing else 1 / row.milliseconds[row.baseline][1] for row in chosen]
        figures = [[scale * each for each in row.milliseconds[name]] for row, scale in zip(chosen, scales, strict=True)]
        medians = [median for _, median, _ in figures]
        spread = [[median - low for low, median, _ in figures], [high - median for _, median, high in figures]]
        style = {"markersize": 4, "linewidth": 1, "color": f"C{index}", "label": name}
        # Implementations of a case lie one below the other, so that their bars stay apart.
        shift = 0 if growing else 0.7 * ((index + 0.5) / len(names) - 0.5)
        places = [cases.index(row.case) + shift for row in chosen]
        if growing:
            panel.errorbar(places, medians, yerr=spread, fmt="o-", **style)
        else:
            panel.errorbar(medians, places, xerr=spread, fmt="o", **style)
    if growing:
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter("{x:g}")
        panel.set_xticks(range(len(cases)), cases, fontsize=8, rotation=30, ha="right")
        panel.set_ylabel(f"nanoseconds for each {rows[0].facts['unit']}", fontsize=8)
        return
    panel.axvline(1, color="0.5", linewidth=0.8)
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter("{x:g} x")
    panel.set_yticks(range(len(cases)), cases, fontsize=8)
    panel.set_ylim(len(cases) - 0.5, -0.5)
    panel.set_xlabel("time over ours", fontsize=8)
