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
        out_path: The picture; its suffix names the format (`.png`, `.svg`, `.pdf`).
        scores: The metrics of the middle panel, which is left out if the log has none of them, with the name to write
            at the end of a curve; None takes accuracy.
        title: Of the middle panel.

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
    # What is measured while training is the mean over an epoch, so it stands in the epoch's middle.
    means = [epoch | {"epochs_done": epoch["epochs_done"] - 0.5} for epoch in epochs]

    scores = {"top1": ""} if scores is None else scores
    shown = {metric: name for metric, name in scores.items() if any(metric in _plain(record) for record in records)}
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
        for place, (metric, name) in enumerate(shown.items()):
            _name_end(axes, epochs[-1], f"validation_{metric}", name, above=place % 2 == 1)
    figure.savefig(out_path, dpi=160)


def _plain(record: dict[str, Any]) -> set[str]:
    """The metrics of a line, wherever they were measured."""
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
    """Give a panel its title and the plain frame that the pictures of this package share."""
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_xlabel(xlabel, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#c8ccd2")
    axes.tick_params(color="#c8ccd2", labelcolor=INK)
    axes.set_axisbelow(True)


def _name_end(axes: Axes, record: dict[str, Any], metric: str, name: str, above: bool) -> None:
    """Write the last value at the end of its curve."""
    if metric in record:
        place = (record["epochs_done"], record[metric])
        axes.plot(*place, "o", color=VALIDATION, markersize=5, clip_on=False)
        axes.annotate(
            f"{name} {record[metric]:.1f}".strip(),
            place,
            (0, 8 if above else -8),
            textcoords="offset points",
            ha="right",
            va="bottom" if above else "top",
            color=VALIDATION,
            weight="bold",
        )
