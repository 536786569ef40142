"""Draw the picture of halo attention in docs/operator.md: blocks, halo, border, stride and the centered window.

    python tools/draw_operator.py            # writes docs/images/operator.svg
    python tools/draw_operator.py FILE.png   # or any other format that matplotlib knows

The map is 10 x 12 pixels, with blocks of 4 and a halo of 1. The same matplotlib gives the same bytes.
"""

import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "operator.svg"
ROWS, COLUMNS, BLOCK, HALO, STRIDE = 10, 12, 4, 1, 2

INK, MUTED = "#1f2937", "#6b7280"
PAPER, BLANK, GRID, CUT = "#ffffff", "#f8fafc", "#d8dee9", "#64748b"
QUERY, KEY, OUTSIDE = "#3f51b5", "#ffd98a", "#eef0f3"
HATCH, QUERY_OF_ONE = "#b6bdc9", "#d81b60"
TIMES = "\N{MULTIPLICATION SIGN}"

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "halonet",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "hatch.linewidth": 0.6,
}


def draw() -> Figure:
    """Make the four panels and the legend."""
    figure, axes = pyplot.subplots(2, 2, figsize=(9.2, 9.0), height_ratios=(15, 13))
    figure.subplots_adjust(left=0.01, right=0.99, top=0.945, bottom=0.045, wspace=0.04, hspace=0.1)
    draw_block(axes[0, 0])
    draw_border(axes[0, 1])
    draw_stride(axes[1, 0])
    draw_centered(axes[1, 1])
    legend = [
        Patch(facecolor=QUERY, label="queries of a block, keys too"),
        Patch(facecolor=KEY, label="the other keys of its window"),
        Patch(facecolor=OUTSIDE, edgecolor=HATCH, hatch="////", linewidth=0.6, label="outside the image"),
    ]
    figure.legend(handles=legend, loc="lower center", ncols=3, frameon=False, fontsize=11, handlelength=1.4)
    return figure


def draw_block(axes: Axes) -> None:
    """The block in the middle: everything it sees lies in the image."""
    draw_map(axes, "Block and halo", f"all 4 {TIMES} 4 queries of a block see the same 6 {TIMES} 6 keys", 3.5)
    fill_window(axes, 4, 4)
    fill_block(axes, 4, 4)
    draw_map_lines(axes)
    measure(axes, 3, 4, "h = 1")
    measure(axes, 4, 8, "b = 4")
    measure(axes, 8, 9, "h = 1")


def draw_border(axes: Axes) -> None:
    """A block in the corner, and a partial block."""
    draw_map(axes, "Border", "keys outside do not exist; the last blocks are partial", 3.5)
    for top, left in ((0, 8), (8, 0)):
        fill_window(axes, top, left)
        fill_block(axes, top, left)
    draw_map_lines(axes)
    write_on(axes, 10, 2, f"4 {TIMES} 4 queries\n5 {TIMES} 5 keys")
    write_on(axes, 2, 9, f"2 {TIMES} 4 queries\n3 {TIMES} 5 keys")


def draw_stride(axes: Axes) -> None:
    """Queries at every second pixel, keys at every pixel."""
    draw_map(axes, "Stride 2", "queries on every second pixel, keys as before")
    fill_window(axes, 4, 4)
    axes.add_patch(Rectangle((4, 4), 4, 4, color=KEY, linewidth=0))
    draw_map_lines(axes)
    for row in range(0, ROWS, STRIDE):
        for column in range(0, COLUMNS, STRIDE):
            of_block = row // BLOCK == 1 and column // BLOCK == 1
            if of_block:
                axes.add_patch(Rectangle((column, row), 1, 1, color=QUERY, linewidth=0))
            axes.plot(column + 0.5, row + 0.5, "o", color=PAPER if of_block else CUT, markersize=5)


def draw_centered(axes: Axes) -> None:
    """What is left to one query when the window is centered on it."""
    draw_map(axes, "centered=True", "a query keeps only the keys within h of itself")
    fill_window(axes, 4, 4)
    fill_block(axes, 4, 4)
    axes.add_patch(Rectangle((6, 3), 3, 3, facecolor=QUERY_OF_ONE, alpha=0.28, linewidth=0))
    draw_map_lines(axes)
    axes.add_patch(Rectangle((6, 3), 3, 3, facecolor="none", edgecolor=QUERY_OF_ONE, linewidth=2.4, zorder=5))
    axes.plot(7.5, 4.5, "o", color=PAPER, markeredgecolor=QUERY_OF_ONE, markeredgewidth=2.2, markersize=8, zorder=6)


def draw_map(axes: Axes, title: str, subtitle: str, space_below: float = 1.5) -> None:
    """An empty map with its caption."""
    axes.set_xlim(-1.7, COLUMNS + 1.7)
    axes.set_ylim(ROWS + space_below, -1.5)
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.text(0, -1.85, title, color=INK, fontsize=14, fontweight="bold", va="bottom")
    axes.text(0, -1.15, subtitle, color=MUTED, fontsize=9.5, va="bottom")
    axes.add_patch(Rectangle((0, 0), COLUMNS, ROWS, color=BLANK, linewidth=0))


def draw_map_lines(axes: Axes) -> None:
    """Pixels thin, blocks thick, over whatever was filled."""
    for row in range(ROWS + 1):
        axes.plot([0, COLUMNS], [row, row], color=GRID, linewidth=0.7, zorder=3)
    for column in range(COLUMNS + 1):
        axes.plot([column, column], [0, ROWS], color=GRID, linewidth=0.7, zorder=3)
    for row in (*range(0, ROWS, BLOCK), ROWS):
        axes.plot([0, COLUMNS], [row, row], color=CUT, linewidth=1.8, zorder=4, solid_capstyle="projecting")
    for column in range(0, COLUMNS + 1, BLOCK):
        axes.plot([column, column], [0, ROWS], color=CUT, linewidth=1.8, zorder=4, solid_capstyle="projecting")


def fill_window(axes: Axes, top: int, left: int) -> None:
    """The keys of a block of the map; those outside the image hatched."""
    bottom, right = top + BLOCK + HALO, left + BLOCK + HALO
    for row in range(top - HALO, bottom):
        for column in range(left - HALO, right):
            inside = 0 <= row < ROWS and 0 <= column < COLUMNS
            look: dict[str, Any] = (
                {"color": KEY} if inside else {"facecolor": OUTSIDE, "edgecolor": HATCH, "hatch": "////"}
            )
            axes.add_patch(Rectangle((column, row), 1, 1, linewidth=0, **look))


def fill_block(axes: Axes, top: int, left: int) -> None:
    """The queries of a block, as far as they lie in the image."""
    height = min(BLOCK, ROWS - top)
    axes.add_patch(Rectangle((left, top), BLOCK, height, color=QUERY, linewidth=0))


def measure(axes: Axes, start: float, stop: float, text: str) -> None:
    """A length, above the window of the block in the middle."""
    line = {"arrowstyle": "|-|, widthA=0.25, widthB=0.25", "color": INK, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (start, 2.55), (stop, 2.55), arrowprops=line, zorder=7)
    box = {"facecolor": BLANK, "edgecolor": "none", "pad": 1.2}
    axes.text((start + stop) / 2, 2.2, text, color=INK, ha="center", va="bottom", fontsize=10, zorder=7, bbox=box)


def write_on(axes: Axes, x: float, y: float, text: str) -> None:
    """Words on a block."""
    box = {"facecolor": QUERY, "edgecolor": "none", "pad": 1}
    axes.text(x, y, text, color=PAPER, ha="center", va="center", fontsize=9, zorder=7, bbox=box, linespacing=1.25)


def main(path: Path = PICTURE) -> None:
    with matplotlib.rc_context(STYLE):
        figure = draw()
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None, "Creator": None} if path.suffix == ".svg" else None
        figure.savefig(path, metadata=metadata, facecolor=PAPER, dpi=110)
        pyplot.close(figure)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
    print(f"wrote {sys.argv[1] if sys.argv[1:] else PICTURE}")
