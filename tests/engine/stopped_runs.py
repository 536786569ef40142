"""Runs that receive signals at chosen moments and are resumed; prints messages, exit status and final state of each.

A program of its own, because it must fork before any thread starts: `python -m tests.engine.stopped_runs FOLDER`.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only

from halonet.engine import run
from halonet.training import to_yaml
from tests.engine.interrupted_runs import ACCUMULATE
from tests.engine.processes import command, end, send, traces
from tests.engine.tiny import make_images, tiny_recipe

SIGINT, SIGTERM, SIGHUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
# The signals, the moment, and the workers. Each of the 18 steps has two micro-batches; an epoch has 6 steps.
SCENARIOS: dict[str, tuple[list[int], str, int]] = {
    "left alone": ([], "step 1", 0),
    "SIGTERM before the training": ([SIGTERM], "setup 1", 0),
    "SIGHUP in the first half of step 3": ([SIGHUP], "micro-batch 5", 0),
    "Ctrl-C in the last step of an epoch": ([SIGINT], "micro-batch 12", 0),
    "SIGTERM in a validation": ([SIGTERM], "validation 1", 0),
    "SIGTERM and SIGHUP while a checkpoint is written": ([SIGTERM, SIGHUP], "writing 3", 0),
    "two Ctrl-C while a checkpoint is written": ([SIGINT, SIGINT], "writing 3", 0),
    "SIGTERM in the last step": ([SIGTERM], "micro-batch 36", 0),
    "SIGHUP in the measurement": ([SIGHUP], "measurement 1", 0),
    "SIGTERM to all processes, with two workers": ([SIGTERM], "micro-batch 9", 2),
    "Ctrl-C to all processes, with two workers": ([SIGINT], "micro-batch 10", 2),
}


def run_scenario(folder: Path, recipe: Path, signals: list[int], moment: str, workers: int) -> dict[str, Any]:
    words = ["train", str(recipe), "--run-dir", str(folder), "--resume-or-start", f"data.workers={workers}"]
    errors = folder.parent / "stderr"
    child = command(words, errors, lambda: send(signals, moment, workers > 0) if signals else None)
    stopped = end(child, errors)
    last = folder / "checkpoints" / "last.ckpt"
    stopped["step"] = torch.load(last, weights_only=True)["global_step"] if last.exists() else 0
    resumed = end(command(words, errors, lambda: None), errors)
    partial = [path.name for path in folder.rglob(".*")]
    return {"stopped": stopped, "resumed": resumed, "partial": partial, "traces": traces(folder)}


def run_two_processes(folder: Path, recipe: Path) -> dict[str, Any]:
    """Run two processes as torchrun does, and send SIGTERM to the second only."""
    words = ["train", str(recipe), "--run-dir", str(folder), "--resume-or-start"]
    words += ["engine.devices=2", "engine.strategy=ddp"]

    def attempt(port: int, signals: list[int]) -> list[dict[str, Any]]:
        children = []
        for rank in range(2):

            def prepare(rank: int = rank) -> None:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": "2"}
                os.environ |= {"LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
                os.environ |= {"TORCHELASTIC_RUN_ID": "test"}
                rank_zero_only.rank = rank
                if rank == 1 and signals:
                    send(signals, "micro-batch 5", False)

            errors = folder.parent / f"stderr {rank}"
            children.append((command(words, errors, prepare), errors))
        return [end(*child) for child in children]

    port = 20_000 + os.getpid() % 10_000
    stopped = attempt(port, [SIGTERM])
    step = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    return {"stopped": stopped, "step": step, "resumed": attempt(port + 1, [])}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    run.draw_curves = lambda *_, **__: None  # takes a third of the time, and is not checked here
    data = make_images(folder / "data")
    recipe = folder / "tiny.yaml"
    # Steps 2, 4, ... are always saved.
    recipe.write_text(to_yaml(tiny_recipe(data, accumulate=ACCUMULATE)))
    left = {name: run_scenario(folder / name, recipe, *scenario) for name, scenario in SCENARIOS.items()}
    left["two processes"] = run_two_processes(folder / "two", recipe)
    print(json.dumps(left))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
