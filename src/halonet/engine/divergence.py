"""When a training counts as diverged: a plain rule over the losses that are logged."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from halonet.errors import DivergedError

# Times the loss of a uniform guess: of the training loss over a stretch of steps, and of any loss at the end.
_STRETCH_FACTOR, _END_FACTOR = 10, 100
_STRETCH = 100
_REMEDY = "lower optimizer.learning_rate, lengthen schedule.warmup_epochs or set engine.clip_gradient"


class Divergence:
    """Judges the lines of a run's log as they are written.

    A training has diverged when a metric is infinite or NaN, or when the training loss stays above ten times that of a
    uniform guess in every line over 100 optimizer steps. At its end it has diverged when a loss, in training,
    validation or test, is above a hundred times that of a uniform guess: a network that is confident and wrong can be
    far above ten times.

    Args:
        chance: The loss of a uniform guess, ln(classes) for a classifier; infinity judges no finite loss.

    Attributes:
        high_since: The optimizer step since which the training loss is too high, or None; a checkpoint keeps it.
    """

    def __init__(self, chance: float = math.inf):
        self.chance = chance
        self.high_since: int | None = None
        self._previous_step = 0

    def judge(self, kind: str, step: int, metrics: Mapping[str, float]) -> None:
        """Judge a line of the log.

        Args:
            kind: "train" or "epoch".
            step: Optimizer steps done.
            metrics: By name.

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
        """Judge where a training ended.

        Args:
            path: The run's `log.jsonl`, complete.

        Raises:
            DivergedError: The training has diverged.
        """
        lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        last = [line for line in lines if line["kind"] == "epoch"][-1:]
        self.judge_end({name: value for line in last for name, value in line.items() if name.endswith("_loss")})

    def judge_end(self, losses: Mapping[str, float]) -> None:
        """Judge losses that were measured at the end of a training.

        Args:
            losses: By name.

        Raises:
            DivergedError: The training has diverged.
        """
        for name, loss in losses.items():
            if not loss <= _END_FACTOR * self.chance:  # so that NaN is told too
                raise DivergedError(
                    f"{name} is {loss:.4g} at the end, above {_END_FACTOR} times that of a uniform guess, "
                    f"{self.chance:.3g}: the training diverged; {_REMEDY}"
                )
