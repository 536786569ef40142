"""Precision-recall curves of boxes and of masks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import PercentFormatter

from halonet.visual.curves import GRID, INK, RATE, TRAINING, VALIDATION, set_style

COLORS = {"0.50": TRAINING, "0.75": RATE, "0.50:0.95": VALIDATION}


def draw_precision_recall(curves: Mapping[str, Mapping[str, Sequence[float]]], out_path: str | Path) -> None:
    """Draw precision over recall, with a panel per kind of result and the average precision of each curve.

    Args:
        curves: For each panel, e.g. "boxes" and "masks", the curves of `AveragePrecision.precision`: by IoU threshold
            "0.50", "0.75" or "0.50:0.95" (the mean), precisions from 0 to 1 at recalls evenly spaced from 0 to 1; empty
            curves are not drawn.
        out_path: The file to write; its suffix determines the format (`.png`, `.svg`, `.pdf`).

    Raises:
        ValueError: There is no panel, or an unknown IoU threshold.
    """
    if not curves:
        raise ValueError("there is no panel of precision and recall to draw")
    figure = Figure(figsize=(4.2 * len(curves), 4.4), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (title, thresholds) in zip(panels, curves.items(), strict=True):
        if not thresholds.keys() <= COLORS.keys():
            raise ValueError(f"the curves of {title!r} are of IoU {', '.join(thresholds)}; known: {', '.join(COLORS)}")
        _draw(axes, thresholds)
        _tidy(axes, title)
    panels[0].set_ylabel("precision", color=INK)
    figure.savefig(out_path, dpi=160)


def _draw(axes: Axes, curves: Mapping[str, Sequence[float]]) -> None:
    for name, color in COLORS.items():
        precisions = curves.get(name, ())
        if not len(precisions):
            continue
        recalls = [index / (len(precisions) - 1) for index in range(len(precisions))]
        # Average precision is the mean of the drawn curve.
        label = f"IoU {name.replace(':', ' to ')}\nAP {100 * sum(precisions) / len(precisions):.1f} %"
        axes.plot(recalls, precisions, color=color, linewidth=2, label=label, solid_capstyle="round", clip_on=False)
        if name == "0.50:0.95":
            axes.fill_between(recalls, precisions, color=color, alpha=0.08, linewidth=0)
    if axes.lines:
        # Below the panel: where curves leave room inside it depends on the results.
        style = {"ncols": len(COLORS), "handlelength": 1.4, "columnspacing": 1.6, "fontsize": 9}
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False, labelcolor=INK, **style)


def _tidy(axes: Axes, title: str) -> None:
    set_style(axes, title, "recall")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_box_aspect(1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    axes.grid(color=GRID, linewidth=0.8)
