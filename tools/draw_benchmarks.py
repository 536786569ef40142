"""The charts of docs/benchmarks.md, one for each question, from the records in results/.

`tools/make_benchmark_page.py` writes them. A chart's description holds a checksum of the figures that it shows, by
which a test tells whether it is up to date. The same matplotlib gives the same bytes.
"""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from benchmark_records import DEVICES, RESULTS, WINDOWS, Device, Medians, Source, read_medians, read_record, rows_of
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from pages import ROOT

from halonet.benchmark.record import Row

CHARTS = ROOT / "docs/images/benchmarks"
STYLE: dict[Any, Any] = {"svg.hashsalt": "halonet", "font.family": "DejaVu Sans", "font.size": 8.5}
WORDS = {
    "cpu": "ours",
    "triton": "ours",
    "composite": "ours in plain PyTorch (composite)",
    "timm": "timm",
    "flex_attention": "FlexAttention",
    "halonet-pytorch": "halonet-pytorch",
    "h1": "H1",
    "timm/halonet_h1": "timm's halonet_h1",
}
COLORS = {
    "cpu": "#3f51b5",
    "triton": "#3f51b5",
    "h1": "#3f51b5",
    "composite": "#9fa8da",
    "timm": "#ef6c00",
    "timm/halonet_h1": "#ef6c00",
    "flex_attention": "#00897b",
    "halonet-pytorch": "#8d6e63",
}
OURS = ("cpu", "triton", "h1")
TASKS = {"forward": "forward", "training": "forward and backward"}
INK, GRID = "#1f2937", "#e5e7eb"


def make_charts(results: Path = RESULTS) -> dict[Path, str]:
    """Draw every chart for which there are records."""
    charts = {}
    for name, (read, draw) in QUESTIONS.items():
        figures = read(results)
        if figures:
            with matplotlib.rc_context({**STYLE, "axes.edgecolor": INK, "text.color": INK}):
                charts[CHARTS / f"{name}.svg"] = _save(draw(figures), checksum(figures))
    return charts


def checksum(figures: Any) -> str:
    """Sum up the figures of a chart."""
    return hashlib.sha256(json.dumps(figures).encode()).hexdigest()[:16]


def read_faster(results: Path) -> Any:
    """Times over ours at H1's stages: by device and pass, for each implementation and stage."""
    return _by_device(
        results,
        lambda device: device.stages,
        lambda medians: {task: _table(medians, task, "ratio", exclude=OURS) for task in TASKS},
    )


def draw_faster(figures: Any) -> Figure:
    figure, panels = _panels(figures, rows=len(TASKS), height=5.4)
    for column, (device, tasks) in enumerate(figures.items()):
        for row, (task, table) in enumerate(tasks.items()):
            panel = panels[row][column]
            _draw_bars(panel, table, lambda value: f"{value:.1f} x" if value < 10 else f"{value:.0f} x", start=1)
            panel.set_title(f"{device}: {TASKS[task]}", loc="left")
            panel.set_xlim(1, 90)
            panel.set_xticks([1, 2, 5, 10, 20, 50], minor=False)
            panel.minorticks_off()
            panel.xaxis.set_major_formatter("{x:g} x")
    return _finish(figure, "How much faster is ours? Time over ours, at H1's stages")


def read_growth(results: Path) -> Any:
    """Nanoseconds for each pixel by the image's side, and for each pair by the window's keys."""
    figures = {}
    for device in DEVICES:
        points = _per_unit(results, device.growth, lambda row: int(row.case.split()[-2]))
        if points:
            figures[f"{device.name}: with the image"] = ["side of the image, pixels", "ns for each pixel", points]
    points = _per_unit(results, WINDOWS, _keys_of_blocks_of_8)
    if points:
        figures["CPU: with the halo of a block of 8"] = [
            "keys in the window",
            "ns for each pair of query and key",
            points,
        ]
    return figures


def draw_growth(figures: Any) -> Figure:
    figure, panels = _panels(figures, rows=1, height=3.2)
    for panel, (title, (across, up, points)) in zip(panels[0], figures.items(), strict=True):
        for name, tasks in points.items():
            for task, line in tasks.items():
                label = f"{WORDS[name]}, {task}"
                style = "-" if task == "forward" else "--"
                panel.plot(*zip(*line, strict=True), style, marker="o", markersize=3, color=COLORS[name], label=label)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xticks(sorted({place for tasks in points.values() for line in tasks.values() for place, _ in line}))
        panel.minorticks_off()
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter("{x:g}")
        panel.set_title(title, loc="left")
        panel.set_xlabel(across)
        panel.set_ylabel(up)
        panel.grid(color=GRID)
    return _finish(figure, "How does it grow? A level line: time is in proportion")


def read_bound(results: Path) -> Any:
    """Percent of the bound that our kernels reach: by device, for each pass and stage."""
    return _by_device(
        results,
        lambda device: device.stages,
        lambda medians: {
            task: {
                _stage(case): figures["bound_percent"]
                for (case, each, name), figures in medians.items()
                if each == task and name in OURS and "bound_percent" in figures
            }
            for task in TASKS
        },
    )


def draw_bound(figures: Any) -> Figure:
    figure, panels = _panels(figures, rows=1, height=2.7)
    colors = {"forward": "#3f51b5", "training": "#9fa8da"}
    for panel, (device, tasks) in zip(panels[0], figures.items(), strict=True):
        _draw_bars(panel, tasks, lambda value: f"{value:.0f} %", colors=colors, words=TASKS)
        panel.set_title(device, loc="left")
        panel.set_xlim(0, 110)
        panel.xaxis.set_major_formatter("{x:g} %")
    return _finish(figure, "How near is it to its bound? The machine's least time over ours, at H1's stages")


def read_memory(results: Path) -> Any:
    """MiB of a training step: of the operator at H1's stages on a CPU, and of the network on each device."""
    figures = {}
    operator = _table(read_medians(results, DEVICES[0].stages), "training", "mebibytes")
    if operator:
        figures["CPU: the operator, forward and backward, MiB"] = operator
    networks: dict[str, dict[str, float]] = {}
    for device in DEVICES:
        for (case, _, name), values in read_medians(results, device.memory).items():
            networks.setdefault(name, {})[f"{device.name}, {case.rpartition(', ')[2]}"] = values["mebibytes"]
    if networks:
        figures["a training step of the network, MiB"] = networks
    return figures


def draw_memory(figures: Any) -> Figure:
    figure, panels = _panels(figures, rows=1, height=3.2)
    for panel, (title, table) in zip(panels[0], figures.items(), strict=True):
        start, room = (1, 3) if "operator" in title else (0, 1.15)
        _draw_bars(panel, table, lambda value: f"{value:.0f}" if value >= 10 else f"{value:.1f}", start)
        panel.set_title(title, loc="left")
        panel.set_xlim(start, room * max(value for line in table.values() for value in line.values()))
        panel.xaxis.set_major_formatter("{x:g}")
    return _finish(figure, "How much memory does it take? The peak above weights and inputs")


QUESTIONS: dict[str, tuple[Callable[[Path], Any], Callable[[Any], Figure]]] = {
    "faster": (read_faster, draw_faster),
    "growth": (read_growth, draw_growth),
    "bound": (read_bound, draw_bound),
    "memory": (read_memory, draw_memory),
}


def _by_device(
    results: Path, choose: Callable[[Device], Source], read: Callable[[Medians], dict[str, Any]]
) -> dict[str, Any]:
    found = {device.name: read_medians(results, choose(device)) for device in DEVICES}
    return {name: read(medians) for name, medians in found.items() if medians}


def _table(medians: Medians, task: str, column: str, exclude: tuple[str, ...] = ()) -> dict[str, dict[str, float]]:
    """A column of a record: by implementation and stage."""
    table: dict[str, dict[str, float]] = {}
    for (case, each, name), figures in medians.items():
        if each == task and column in figures and name not in exclude:
            table.setdefault(name, {})[_stage(case)] = figures[column]
    return table


def _stage(case: str) -> str:
    return case.partition("/")[2].replace("stage", "stage ")


def _per_unit(results: Path, source: Source, place: Callable[[Row], int | None]) -> dict[str, Any]:
    """Nanoseconds for each unit of the last run's rows that have a place: by implementation and pass, in order."""
    record = read_record(results, source)
    if record is None:
        return {}
    points: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for row in rows_of(record)[-1]:
        at = place(row)
        if at is not None:
            for name, (_, median, _) in row.milliseconds.items():
                line = points.setdefault(name, {}).setdefault(row.task, [])
                line.append((at, 1e6 * median / row.facts["units"]))
    return {name: {task: sorted(line) for task, line in tasks.items()} for name, tasks in points.items()}


def _keys_of_blocks_of_8(row: Row) -> int | None:
    return (8 + 2 * row.facts["halo"]) ** 2 if row.facts["block"] == 8 else None


def _panels(figures: Any, rows: int, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(9, height), layout="constrained")
    return figure, figure.subplots(rows, len(figures), squeeze=False)


def _draw_bars(
    panel: Axes,
    table: dict[str, dict[str, float]],
    label: Callable[[float], str],
    start: float = 0,
    colors: dict[str, str] = COLORS,
    words: dict[str, str] = WORDS,
) -> None:
    """Draw a bar for each line and place; from `start`, on a logarithmic scale if that is not 0."""
    places = list(dict.fromkeys(place for line in table.values() for place in line))
    width = 0.8 / len(table)
    if start:
        panel.set_xscale("log")
    for index, (name, line) in enumerate(table.items()):
        at = [places.index(place) + (index + 0.5) * width - 0.4 for place in line]
        lengths = [value - start for value in line.values()]
        bars = panel.barh(at, lengths, 0.92 * width, left=start, color=colors[name], label=words[name])
        panel.bar_label(bars, [label(value) for value in line.values()], padding=2, fontsize=7)
    panel.set_yticks(range(len(places)), places)
    panel.set_ylim(len(places) - 0.5, -0.5)
    panel.grid(axis="x", color=GRID)
    panel.set_axisbelow(True)


def _finish(figure: Figure, title: str) -> Figure:
    """Add the title, and one legend for all panels."""
    labels: dict[str, Any] = {}
    for panel in figure.axes:
        panel.spines[["top", "right"]].set_visible(False)
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True):
            labels.setdefault(name, handle)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=min(len(labels), 4), frameon=False)
    return figure


def _save(figure: Figure, description: str) -> str:
    FigureCanvasSVG(figure)
    file = io.StringIO()
    metadata = {"Date": None, "Creator": None, "Description": description}
    figure.savefig(file, format="svg", metadata=metadata, facecolor="white")
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"
