import json
import math
from pathlib import Path

import pytest

from halonet.engine.divergence import Divergence
from halonet.errors import DivergedError

CHANCE = math.log(10)


@pytest.fixture
def divergence() -> Divergence:
    return Divergence(CHANCE)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_has_diverged(divergence: Divergence, value: float):
    with pytest.raises(DivergedError, match=f"loss became {value} by step 3: the training diverged; lower"):
        divergence.judge("train", 3, {"loss": value})


def test_a_high_loss_over_a_hundred_steps_has_diverged(divergence: Divergence):
    divergence.judge("train", 10, {"loss": 2.0})
    for step in range(20, 110, 10):
        divergence.judge("train", step, {"loss": 10.1 * CHANCE})
    message = "loss is 23.26 at step 110, and was above 10 times that of a uniform guess, 2.3, since step 10"
    with pytest.raises(DivergedError, match=message):
        divergence.judge("train", 110, {"loss": 10.1 * CHANCE})


def test_a_loss_that_recovers_has_not_diverged(divergence: Divergence):
    for step in range(10, 1000, 10):
        divergence.judge("train", step, {"loss": 1e6 if step % 100 else 9.9 * CHANCE})


def test_epoch_lines_do_not_count_as_steps(divergence: Divergence):
    for step in range(50, 1000, 50):
        divergence.judge("epoch", step, {"train_loss": 50 * CHANCE, "validation_loss": 50 * CHANCE})


@pytest.mark.parametrize("name", ["train_loss", "validation_loss"])
def test_a_huge_loss_in_the_last_epoch_has_diverged(divergence: Divergence, tmp_path: Path, name: str):
    lines = [
        {"kind": "epoch", "train_loss": 1e7, "validation_loss": 1e7},
        {"kind": "epoch", "train_loss": 2.0, "validation_loss": 2.0},
        {"kind": "train", "loss": 1e7},
    ]
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(map(json.dumps, lines)))
    divergence.judge_log(log)
    log.write_text("\n".join(map(json.dumps, [*lines, lines[1] | {name: 9_218_755.0}])))
    with pytest.raises(DivergedError, match=f"{name} is 9.219e\\+06 at the end, above 100 times"):
        divergence.judge_log(log)


def test_without_a_limit_finite_losses_pass():
    divergence = Divergence()
    for step in range(10, 1000, 10):
        divergence.judge("train", step, {"loss": 1e30})
    divergence.judge_end({"loss": 1e30})
