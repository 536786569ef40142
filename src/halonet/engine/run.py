"""A training run of any task, from the recipe to the result."""

import json
import os
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning

from halonet.engine.checkpoints import LAST, BestCheckpoint, callback_state, find_checkpoint
from halonet.engine.divergence import Divergence
from halonet.engine.files import explain_full_disk, read_json, remove_partial_files, write_atomically
from halonet.engine.log import RunLog
from halonet.engine.session import as_begun, is_first_process, require_same_recipe, session
from halonet.engine.task import Task, task_for
from halonet.engine.trainer import fit
from halonet.engine.weights import network_state, read_checkpoint, save_weights
from halonet.errors import UserError, UserNote
from halonet.interrupts import Interrupted, Interrupts, name_of
from halonet.recipes.load import resolve, was_edited
from halonet.recipes.schema import AnyRecipe
from halonet.visual.curves import draw_curves

RUN_FILES = ("recipe.yaml", "result.json", "log.jsonl", "checkpoints", "model.safetensors")


def train(
    recipe: AnyRecipe,
    run_dir: str | Path | None = None,
    *,
    or_resume: bool = False,
    advice: str | None = None,
    callbacks: Sequence[lightning.Callback] = (),
) -> Path:
    """Train a recipe of any task from the first step to the result.

    The run folder then holds `recipe.yaml` (resolved), `log.jsonl`, `timing.jsonl`, `tensorboard/`,
    `checkpoints/last.ckpt` and `previous.ckpt`, `checkpoints/best.ckpt` (the best validation), `model.safetensors` (the
    last weights, or their EMA), `curves.png` and `result.json`; for a detector also `detections.json` (the detections
    in the test images, in COCO's results format) and `precision_recall.png`.

    `resume` completes a run that was interrupted in any way. SIGINT, SIGTERM and SIGHUP end a run after the current
    optimizer step, with a checkpoint; a second SIGINT ends the process at once. The folder is locked: only one process
    at a time can write into it.

    Args:
        recipe: What to train; values that are null are taken from the data, see `fill_in`.
        run_dir: The run folder; by default `runs/NAME`.
        or_resume: Whether to complete the run if the folder already holds one of the same recipe.
        advice: What messages tell the user to do after an interruption; by default, to run the command that resumes.
        callbacks: Lightning callbacks to run after those of this package.

    Returns:
        The run folder.

    Raises:
        UserError: The folder already holds a run or is in use by another process, the data or initial weights cannot be
            read or do not fit the model, the training diverges, or the disk is full.
        Interrupted: A signal ended the run; this is a KeyboardInterrupt.
    """
    folder = run_folder(recipe, run_dir)
    task = task_for(recipe).with_absolute_paths()
    is_begun = or_resume and os.path.isfile(folder / "recipe.yaml")
    if is_begun:
        task = task_for(as_begun(task.recipe, folder)).moved(None, task.recipe.data.source, folder)
        require_same_recipe(folder, task.recipe, task.command)
        if (folder / "result.json").is_file():
            return folder
    with session(folder, task.command, advice) as interrupts:
        if is_first_process() and not is_begun:
            _refuse_used_folder(folder, task.command)
        task = task.completed(print if is_first_process() else lambda line: None)
        return _run(folder, task, callbacks, interrupts)


def resume(
    run_dir: str | Path,
    *,
    root: str | Path | None = None,
    source: str | None = None,
    task: str | None = None,
    callbacks: Sequence[lightning.Callback] = (),
) -> Path:
    """Complete an interrupted run; on a CPU, the result is bit for bit that of an uninterrupted one.

    That holds for the same world size, threads, versions and instruction set; a `UserNote` warning names those that
    differ. If the last checkpoint is damaged, the run continues from the previous one, with a `UserNote` warning. A
    finished run is left unchanged. Files of initial weights are no longer needed.

    Args:
        run_dir: The run folder.
        root: Where a named data set is now; by default where it was when the run began.
        source: The name of the data set, which is required if it has to be downloaded: the run folder may come from
            someone else.
        task: "classification" or "detection", which the run must be of; None takes either.
        callbacks: As in `train`.

    Returns:
        The run folder.

    Raises:
        UserError: The folder holds no run, or one of another task, `source` is not its data set or is missing, or any
            error of `train`.
        Interrupted: A signal ended the run; this is a KeyboardInterrupt.
    """
    folder = Path(run_dir)
    if not os.path.isfile(folder / "recipe.yaml"):
        raise UserError(f"{folder} holds no run to resume: it has no recipe.yaml; start one with --run-dir {folder}")
    begun = task_for(resolve(folder / "recipe.yaml", task=task)).moved(root, source, run_dir)
    if (folder / "result.json").is_file():
        checkpoint = {}
        with suppress(UserError):  # a finished run needs no checkpoint any more
            checkpoint = read_checkpoint(folder / "checkpoints" / LAST)
        _refuse_edited(folder, checkpoint, begun.recipe)
        return folder
    with session(folder, begun.command) as interrupts:
        return _run(folder, begun, callbacks, interrupts)


def run_folder(recipe: AnyRecipe, run_dir: str | Path | None) -> Path:
    """Return the given run folder, or by default `runs/NAME`.

    Raises:
        UserError: Neither the folder nor the recipe has a name.
    """
    if run_dir is not None:
        return Path(run_dir)
    if not recipe.name:
        raise UserError("the recipe has no name, so its run has no folder below runs/: name it, or give --run-dir")
    return Path("runs") / recipe.name


def read_result(run_dir: str | Path) -> dict[str, Any]:
    """Read the `result.json` of a finished run.

    Raises:
        UserError: It is damaged.
    """
    return read_json(Path(run_dir) / "result.json")


def _refuse_used_folder(folder: Path, command: str) -> None:
    held = [name for name in RUN_FILES if (folder / name).exists()]
    if held:
        raise UserError(
            f"{folder} already holds a run ({held[0]}): continue it with {command} --resume {folder}, "
            "or choose another folder with --run-dir"
        )


def _refuse_edited(folder: Path, checkpoint: dict[str, Any], recipe: AnyRecipe) -> None:
    """Refuse to return a finished run if its recipe was edited afterwards."""
    if "recipe" in checkpoint and was_edited(checkpoint["recipe"], recipe, ("root", "source")):
        raise UserError(
            f"{folder} holds a finished run, but its recipe.yaml was edited since: restore it, or train the edited one "
            f"in another folder, with {folder / 'recipe.yaml'} --run-dir OTHER"
        )


def _run(folder: Path, task: Task, callbacks: Sequence[lightning.Callback], interrupts: Interrupts) -> Path:
    """Do the rest of a run: all of it if the folder has no checkpoint."""
    begin = time.monotonic()
    if is_first_process():
        remove_partial_files(folder)
    data = task.data()
    data.setup()
    _require_classes(task.recipe, len(data.class_names))
    found = find_checkpoint(folder / "checkpoints")
    if found.note and is_first_process():
        warnings.warn(UserNote(found.note), stacklevel=3)
    if found.content.get("finished"):
        _refuse_edited(folder, found.content, task.recipe)
    else:
        checkpoint = found.path
        begun_with = {name: found.content[name] for name in ("environment", "recipe") if found.content}
        del found  # its content is as large as the model, and the Trainer reads it again
        try:
            module = task.module(initialized=checkpoint is not None)
            fit(folder, task, module, data, checkpoint, begun_with, callbacks, interrupts)
        finally:
            interrupts.postponed = False
        if interrupts.number is not None:
            when = "after the last step, with only the measurement left to do"
            raise Interrupted(f"stopped by {name_of(interrupts.number)} {when}", interrupts.number)
        begin = time.monotonic()
    if is_first_process():
        _finish(folder, task, begin)
    return folder


def _require_classes(recipe: AnyRecipe, found: int) -> None:
    if found != recipe.model.num_classes:
        raise UserError(
            f"{recipe.data.source!r} has {found} classes, but model.num_classes is {recipe.model.num_classes}: "
            f"set it to {found}"
        )


def _finish(folder: Path, task: Task, begin: float) -> None:
    """Write the results of a finished training, from the last checkpoint and the log."""
    recipe = task.recipe
    divergence = Divergence(task.guess_loss)
    divergence.judge_log(folder / "log.jsonl")
    checkpoint = read_checkpoint(folder / "checkpoints" / LAST)
    save_weights(folder / "model.safetensors", network_state(checkpoint), checkpoint["halonet"])
    with explain_full_disk(folder / "curves.png"):
        draw_curves(folder / "log.jsonl", folder / "curves.png", **task.curves)
    measured = task.measure(folder, "cpu" if recipe.engine.accelerator == "cpu" else "auto")
    divergence.judge_end({"the test loss": measured["loss"]} if "loss" in measured else {})
    clock = callback_state(checkpoint, RunLog)["clock"]
    environment = dict(checkpoint["environment"])
    result = measured | {
        "images_per_second": clock["train_images"] / clock["train_seconds"],
        "seconds": clock["seconds"] + time.monotonic() - begin,
        "recipe": recipe.name,
        "model": recipe.model.name,
        "data": recipe.data.source,
        "split": recipe.data.test_split,
        "steps": checkpoint["global_step"],
        "seed": recipe.engine.seed,
        "best": callback_state(checkpoint, BestCheckpoint)["best"],
        **{name: environment.pop(name) for name in ("device", "hardware", "threads", "world_size")},
        "versions": environment,
    }
    text = json.dumps(result, indent=2) + "\n"
    write_atomically(folder / "result.json", lambda file: file.write(text.encode()))
