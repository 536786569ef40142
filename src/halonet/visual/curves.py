"""The curves of a training run, drawn from its log."""

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

TRAINING, VALIDATION, RATE, INK = "#4c78a8", "#e4572e", "#8a8f98", "#2b2f36"
GRID = "#e8eaee"


def draw_curves(
    log_path: str | Path,
    out_path: str | Path,
    *,
    scores: dict[str, str] | None = None,
    title: str = "top-1 accuracy (%)",
) -> None:
    """Draw loss, scores and learning rate over the epochs of a run.

    Args:
        log_path: A run's `log.jsonl`.
        out_path: The file to write; its suffix determines the format (`.png`, `.svg`, `.pdf`).
        scores: The metrics of the middle panel and the names to write at the ends of their curves; None draws accuracy.
            Without any of them in the log, the panel is left out.
        title: The middle panel's title.

    Raises:
        ValueError: The log has no finished epoch.
    """
    records = [json.loads(line) for line in Path(log_path).read_text(encoding="utf-8").splitlines()]
    epochs = [record for record in records if record["kind"] == "epoch"]
    steps = [record for record in records if record["kind"] == "train"]
    if not epochs:
        raise ValueError(f"{log_path} has no finished epoch to draw")
    steps_per_epoch = epochs[0]["step"] / (epochs[0]["epoch"] + 1)
    for record in records:
        record["epochs_done"] = record["step"] / steps_per_epoch
    # Training metrics are means over an epoch, so they are drawn at its middle.
    means = [epoch | {"epochs_done": epoch["epochs_done"] - 0.5} for epoch in epochs]

    scores = {"top1": ""} if scores is None else scores
    shown = {metric: name for metric, name in scores.items() if any(metric in _metrics(record) for record in records)}
    figure = Figure(figsize=(10 if shown else 6.5, 3.4), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    panels = figure.subplots(1, 3 if shown else 2, width_ratios=(4, 4, 2.5) if shown else (4, 2.5))
    loss, *middle, rate = panels
    for axes, metrics in ((loss, ["loss"]), *((axes, list(shown)) for axes in middle)):
        for metric, dashes in zip(metrics, ("-", "--", ":"), strict=False):
            _draw(axes, steps, metric, color=TRAINING, alpha=0.3, linewidth=1)
            _draw(axes, means, f"train_{metric}", color=TRAINING, linewidth=2, label="training")
            style = {"color": VALIDATION, "linewidth": 2, "linestyle": dashes}
            _draw(axes, epochs, f"validation_{metric}", label="validation", **style)
    _draw(rate, steps, "learning_rate", color=RATE, linewidth=2)
    rate.set_ylim(bottom=0)
    for axes, heading in ((loss, "loss"), *((axes, title) for axes in middle), (rate, "learning rate")):
        _tidy(axes, heading, epochs[-1]["epochs_done"])
    loss.legend(frameon=False, labelcolor=INK)
    for axes in middle:
        for index, (metric, name) in enumerate(shown.items()):
            _name_end(axes, epochs[-1], f"validation_{metric}", name, above=index % 2 == 1)
    figure.savefig(out_path, dpi=160)


def _metrics(record: dict[str, Any]) -> set[str]:
    """The metrics of a record, of training or of validation."""
    return {name.removeprefix("train_").removeprefix("validation_") for name in record}


def _draw(axes: Axes, records: list[dict[str, Any]], metric: str, **style: Any) -> None:
    points = [(record["epochs_done"], record[metric]) for record in records if metric in record]
    if points:
        marker = "o" if len(points) == 1 else None
        axes.plot(*zip(*points, strict=True), marker=marker, solid_capstyle="round", **style)


def _tidy(axes: Axes, title: str, last_epoch: float) -> None:
    set_style(axes, title, "epochs")
    axes.set_xlim(0, last_epoch)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(axis="y", color=GRID, linewidth=0.8)


def set_style(axes: Axes, title: str, xlabel: str) -> None:
    """Set a panel's title and the plain frame that the figures of this package share."""
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_xlabel(xlabel, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#c8ccd2")
    axes.tick_params(color="#c8ccd2", labelcolor=INK)
    axes.set_axisbelow(True)


def _name_end(axes: Axes, record: dict[str, Any], metric: str, name: str, above: bool) -> None:
    """Write the last value at the end of its curve."""
    if metric in record:
        point = (record["epochs_done"], record[metric])
        axes.plot(*point, "o", color=VALIDATION, markersize=5, clip_on=False)
        axes.annotate(
            f"{name} {record[metric]:.1f}".strip(),
            point,
            (0, 8 if above else -8),
            textcoords="offset points",
            ha="right",
            va="bottom" if above else "top",
            color=VALIDATION,
            weight="bold",
        )
