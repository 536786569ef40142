"""A plan of two rows and records of it, made up."""

from pathlib import Path
from typing import Any

from halonet.benchmark.claims.experiment import experiment_hash, resolved_recipe
from halonet.benchmark.claims.plan import Plan, read_plan

PLAN = """\
variant: CIFAR-10 (JPEG)
bases:
  first:
    seeds: 5
    minutes: 30.0
    recipe:
      description: a base
      reproduces: nothing
      model: {name: small32, num_classes: 10, overrides: {depths: [1, 1, 1]}}
      data: {source: cifar10, augmentation: {image_size: 32, mean: [0.5, 0.4, 0.3]}}
      optimizer: {learning_rate: 0.2}
      schedule: {epochs: 2}
  second: {seeds: 5, base: first, set: {model.overrides.depths: [1, 1, 2]}}
claims:
  deep:
    title: Deeper is better
    source: Table 9
    rows:
      third: {base: first, seeds: 3, set: {optimizer.learning_rate: 0.1}, effect: lower, paper: "-2.0 | of 9"}
      fourth: {base: first, seeds: 3, minutes: 60.0, set: {optimizer.learning_rate: 0.3}, effect: none, paper: "0.0"}
    comparisons:
      - {row: first, base: second, effect: higher, paper: "+1.0"}
      - {row: second, base: first, effect: lower, paper: "as steady", measure: changed_by_shifts}
    contrasts:
      gap: {of: [first, second, third, fourth], effect: higher, paper: "+0.5"}
absent:
  - Whales are not here.
"""


def make_plan(folder: Path) -> Plan:
    path = folder / "plan.yaml"
    path.write_text(PLAN)
    return read_plan(path)


def make_record(plan: Plan, row: str = "first", seed: int = 0, top1: float = 60.0, **others: Any) -> dict[str, Any]:
    """A run of 10 test images that went well, with other values by key."""
    recipe = plan.rows[row].recipe
    epoch = {"train_loss": 1.5, "train_top1": 70.0, "validation_loss": 1.2, "validation_top1": 61.0}
    return {
        "benchmark": "claims",
        "row": row,
        "seed": seed,
        "status": "complete",
        "reason": None,
        "recipe": resolved_recipe(recipe),
        "recipe_hash": experiment_hash(recipe),
        "epochs": [{"epoch": 0} | epoch, {"epoch": 1} | epoch],
        "test": {"top1": top1, "top5": 95.0, "loss": 1.1, "images": 10},
        "predictions": "3889012345",
        "shifts": {
            "direction": "right",
            "fill": "black",
            "images": 5,
            "pixels": [1, 2, 3, 4, 5, 6, 7, 8],
            "top1": [60.0, 59.0, 58.0, 57.0, 56.0, 55.0, 54.0, 53.0],
            "changed": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
            "unshifted_top1": 61.0,
        },
        "parameters": 250_000,
        "macs": 12_000_000,
        "data": {
            "variant": "CIFAR-10 (JPEG)",
            "checksums": {"train": "ab", "test": "cd"},
            "images": {"train": 90, "validation": 10, "test": 10},
        },
        "seconds": {"process": 600.0, "wall": 700.0},
        "machine": {"processor": "abacus"},
        "provenance": {
            "command": "halonet benchmark claims",
            "time": "2026-11-26T20:00:00+00:00",
            "commit": "abc1234",
            "modified": False,
            "python": "3.11.7",
            "halonet": "0.1.0",
            "torch": "2.15.0",
            "timm": "1.0.31",
        },
    } | others


def make_diverged(plan: Plan, row: str = "first", seed: int = 0) -> dict[str, Any]:
    """A run that ended in its first epoch."""
    nothing = {"test": None, "predictions": None, "shifts": None, "epochs": []}
    return make_record(plan, row, seed, status="diverged", reason="the loss is not finite at step 7", **nothing)
