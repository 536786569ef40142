"""Runs that kill themselves at chosen moments and are resumed; prints the final state of each scenario.

A program of its own, because it must fork before any thread starts: `python -m tests.engine.interrupted_runs FOLDER`.
"""

import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import lightning
import torch

from halonet.classification import task as classification
from halonet.engine import checkpoints, files, run
from halonet.engine.run import resume, train
from tests.engine.processes import in_a_child, on_call, traces
from tests.engine.tiny import make_images, tiny_recipe

ACCUMULATE = 2
# Workers, and the moments of the kills. Step 13 is the first of an epoch: the run resumes at the start of the epoch,
# where workers load their first batches before Lightning has set the epoch of the sampler.
SCENARIOS: dict[str, tuple[int, list[str]]] = {
    "never": (0, []),
    "in the validation at an epoch's end": (0, ["validation 1"]),
    "while a checkpoint is written": (0, ["writing 3"]),
    "after the training, before the result": (0, ["result 0"]),
    # The renamings are of the recipe, step 2, step 2 again to make room, and step 4.
    "between the two renamings of a checkpoint": (0, ["renaming 4"]),
    "six times in a row": (0, ["step 1", "micro-batch 5", "validation 0", "writing 2", "renaming 2", "step 13"]),
    "three times, with two workers": (2, ["step 4", "validation 1", "step 13"]),
}


def die(*_: Any, **__: Any) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a process outlived SIGKILL")


class Killer(lightning.Callback):
    def __init__(self, moment: str, number: int):
        self.moment = moment
        self.number = number

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        micro_batch = trainer.fit_loop.total_batch_idx + 1
        if self.moment == "step" and trainer.global_step == self.number:
            die()
        if self.moment == "micro-batch" and micro_batch == self.number:
            assert micro_batch % ACCUMULATE
            die()

    def on_validation_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        if self.moment == "validation" and trainer.current_epoch == self.number:
            die()


def write_half_and_die(checkpoint: Any, file: Any) -> None:
    content = io.BytesIO()
    SAVE(checkpoint, content)
    file.write(content.getvalue()[: len(content.getvalue()) // 2])
    file.flush()
    die()


SAVE = torch.save


def attempt(folder: Path, data: Path, workers: int, kill: str) -> int:
    """Train or resume in a child process; return the number of the signal that ended it."""

    def work() -> None:
        moment, _, number = kill.rpartition(" ")
        if moment == "writing":
            checkpoints.torch.save = on_call(int(number), SAVE, write_half_and_die)
        if moment == "renaming":
            files.os.replace = on_call(int(number), os.replace, die)
        if moment == "result":
            classification.evaluate = die
        run.draw_curves = lambda *_: None  # takes a third of the time, and is not checked here
        callbacks = [Killer(moment, int(number or 0))]
        if (folder / "recipe.yaml").exists():
            resume(folder, callbacks=callbacks)
        else:
            train(tiny_recipe(data, workers=workers, accumulate=ACCUMULATE), folder, callbacks=callbacks)

    return in_a_child(work, f"{folder.name}, {kill or 'the last attempt'}")


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    data = make_images(folder / "data")
    left = {}
    for scenario, (workers, kills) in SCENARIOS.items():
        run_folder = folder / scenario
        for kill in kills:
            assert attempt(run_folder, data, workers, kill) == signal.SIGKILL, f"{scenario}: {kill} did not happen"
        assert attempt(run_folder, data, workers, "") == 0
        left[scenario] = traces(run_folder)
    print(json.dumps(left))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
