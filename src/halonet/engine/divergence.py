"""A rule for when a training has diverged."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from halonet.errors import DivergedError

# Limits in multiples of the loss of a uniform guess: for the training loss over a stretch of steps, for any at the end.
_STRETCH_FACTOR, _END_FACTOR = 10, 100
_STRETCH = 100  # optimizer steps
_REMEDY = "lower optimizer.learning_rate, lengthen the warm-up or set engine.clip_gradient"


class Divergence:
    """Judges the losses of a run as they are logged.

    A training has diverged when a metric is infinite or NaN, or when the training loss stays above ten times that of a
    uniform guess in every line over 100 optimizer steps. At the end it has diverged when a training, validation or test
    loss is above a hundred times that of a uniform guess: a confident network that is wrong can be far above ten times.

    Args:
        chance: The loss of a uniform guess, ln(classes) for a classifier; with infinity every finite loss passes.

    Attributes:
        high_since: The optimizer step since which the training loss is too high, or None; a checkpoint keeps it.
    """

    def __init__(self, chance: float = math.inf):
        self.chance = chance
        self.high_since: int | None = None
        self._previous_step = 0

    def judge(self, kind: str, step: int, metrics: Mapping[str, float]) -> None:
        """Judge a line of the log, of kind "train" or "epoch".

        Raises:
            DivergedError: The training has diverged.
        """
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise DivergedError(f"{name} became {value} by step {step}: the training diverged; {_REMEDY}")
        if kind != "train" or "loss" not in metrics:
            return
        if metrics["loss"] <= _STRETCH_FACTOR * self.chance:
            self.high_since = None
        elif self.high_since is None:
            self.high_since = self._previous_step
        self._previous_step = step
        if self.high_since is not None and step - self.high_since >= _STRETCH:
            raise DivergedError(
                f"loss is {metrics['loss']:.4g} at step {step}, and was above {_STRETCH_FACTOR} times that of a "
                f"uniform guess, {self.chance:.3g}, since step {self.high_since}: the training diverged; {_REMEDY}"
            )

    def judge_log(self, path: Path) -> None:
        """Judge the end of a training by its complete `log.jsonl`.

        Raises:
            DivergedError: The training has diverged.
        """
        lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        last = [line for line in lines if line["kind"] == "epoch"][-1:]
        self.judge_end({name: value for line in last for name, value in line.items() if name.endswith("_loss")})

    def judge_end(self, losses: Mapping[str, float]) -> None:
        """Judge losses that were measured at the end of a training.

        Raises:
            DivergedError: The training has diverged.
        """
        for name, loss in losses.items():
            if not loss <= _END_FACTOR * self.chance:  # also true for NaN
                raise DivergedError(
                    f"{name} is {loss:.4g} at the end, above {_END_FACTOR} times that of a uniform guess, "
                    f"{self.chance:.3g}: the training diverged; {_REMEDY}"
                )
