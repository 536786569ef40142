"""A run that kills itself at chosen moments and is resumed; prints the final state.

A program of its own, because it must fork before any thread starts: `python -m tests.detection.interrupted_runs
FOLDER`.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch

from halonet.detection import resume, train
from halonet.engine import run as running
from halonet.engine.run import read_result
from tests.detection.tiny import make_scenes, tiny_recipe
from tests.engine.interrupted_runs import Killer
from tests.engine.processes import digest, in_a_child

SCENARIOS = {"never": (0, []), "twice, with a worker": (1, ["step 2", "step 5"])}


def attempt(folder: Path, data: Path, workers: int, kill: str) -> int:
    """Train or resume in a child process; return the number of the signal that ended it."""

    def work() -> None:
        moment, _, number = kill.rpartition(" ")
        running.draw_curves = lambda *_, **__: None
        callbacks = [Killer(moment, int(number or 0))]
        if (folder / "recipe.yaml").exists():
            resume(folder, callbacks=callbacks)
        else:
            train(tiny_recipe(data, workers=workers), folder, callbacks=callbacks)

    return in_a_child(work, f"{folder.name}, {kill or 'the last attempt'}")


def traces(folder: Path) -> dict[str, Any]:
    """Everything in a finished run that must not depend on interruptions."""
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    result = read_result(folder)
    return {
        "log": (folder / "log.jsonl").read_text(),
        "weights": digest([checkpoint["current_model_state"], checkpoint["state_dict"]]),
        "optimizer": digest([checkpoint["optimizer_states"], checkpoint["lr_schedulers"]]),
        "model.safetensors": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "detections": hashlib.sha256((folder / "detections.json").read_bytes()).hexdigest(),
        "result": {name: result[name] for name in ("box_ap", "mask_ap", "best", "steps")},
    }


def main(folder: Path) -> None:
    data = make_scenes(folder / "coco")
    found = {}
    for name, (workers, kills) in SCENARIOS.items():
        run = folder / name.replace(" ", "_").replace(",", "")
        signals = [attempt(run, data, workers, kill) for kill in [*kills, ""]]
        found[name] = {"signals": signals, "traces": traces(run)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
