"""The training of a classifier, from recipe to result."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch

import halonet
from halonet.data import derive_seed
from halonet.data.sources import is_named, require_asked_for
from halonet.errors import UserError
from halonet.training.classifier import Classifier
from halonet.training.datamodule import ClassificationData
from halonet.training.engine import Job, anchored, complete, refuse_used, run_folder, start
from halonet.training.evaluation import describe_accuracy, evaluate
from halonet.training.from_data import fill_in, require_filled_in
from halonet.training.recipe import Recipe
from halonet.training.recipes import resolve
from halonet.training.session import as_begun, is_first_process

COMMAND = "halonet train"


def train(
    recipe: Recipe,
    run_dir: str | Path | None = None,
    *,
    or_resume: bool = False,
    advice: str | None = None,
    callbacks: Sequence[lightning.Callback] = (),
) -> Path:
    """Train a recipe from the beginning to its result.

    The run folder then holds `recipe.yaml` (resolved), `log.jsonl`, `timing.jsonl`, `tensorboard/`,
    `checkpoints/last.ckpt` and `previous.ckpt`, `checkpoints/best.ckpt` (the best validation), `model.safetensors` (the
    last weights, the EMA's if there is one), `curves.png` and `result.json`. A run that is interrupted, in whatever
    way, is completed by `resume`. SIGINT, SIGTERM and SIGHUP end it after the optimizer step in progress, with a
    checkpoint.

    Args:
        recipe: What to do; what it leaves null follows from the data, see `halonet.training.fill_in`.
        run_dir: The run folder; None takes `runs/NAME`.
        or_resume: Whether a run of the same recipe that the folder holds already is completed instead.
        advice: What messages tell to do once the run was cut short; None names the command that resumes it.
        callbacks: Of Lightning, to run after those of this package.

    Returns:
        The run folder.

    Raises:
        UserError: The folder already holds a run or is in use by another process, the data cannot be read or does not
            fit the model, the training diverges, or the disk is full.
        Interrupted: A signal ended it; a KeyboardInterrupt.
    """
    folder, recipe = run_folder(recipe, run_dir), _anchored(recipe)
    refuse_used(folder, COMMAND, or_resume=or_resume)
    if or_resume:
        recipe = as_begun(recipe, folder)
    say = print if is_first_process() else lambda line: None
    job = _job(fill_in(recipe, say=say))
    return start(job, folder, or_resume=or_resume, advice=advice, callbacks=callbacks)


def resume(
    run_dir: str | Path,
    *,
    root: str | Path | None = None,
    source: str | None = None,
    callbacks: Sequence[lightning.Callback] = (),
) -> Path:
    """Complete a run that was interrupted; on a CPU it ends with the bits of one that was not.

    That holds for the same world size, threads, versions and instruction set; a `UserNote` warning names each that
    differs. A finished run is left as it is.

    Args:
        run_dir: The run folder.
        root: The folder that a named data set lies in now; None takes the one that the run began with.
        source: The data set's name again, where it has to be fetched: a run folder may be somebody else's.
        callbacks: As in `train`.

    Returns:
        The run folder.

    Raises:
        UserError: The folder holds no run, `source` is not its data set or is missing, or one of the errors of `train`.
    """

    def job(path: Path) -> Job:
        recipe = resolve(path)
        require_asked_for(recipe.data.source, source, f"run {run_dir}")
        if source not in (None, recipe.data.source):
            raise UserError(f"run {run_dir} was trained on {recipe.data.source}: it cannot go on with {source}")
        data = recipe.data if root is None else dataclasses.replace(recipe.data, root=str(root))
        return _job(_anchored(dataclasses.replace(recipe, data=data)))

    return complete(run_dir, job, callbacks=callbacks)


def build_data(recipe: Recipe) -> ClassificationData:
    """Make the data module of a recipe.

    Args:
        recipe: Any.

    Returns:
        The data module; nothing is read yet.
    """
    require_filled_in(recipe)
    data = recipe.data
    return ClassificationData(
        data.source,
        data.augmentation,
        root=data.root,
        train_images=data.train_images,
        num_classes=recipe.model.num_classes,
        hold_out=data.hold_out,
        shrink=data.shrink,
        batch_size=recipe.optimizer.batch_size,
        validation_split=data.validation_split,
        test_split=data.test_split,
        workers=data.workers,
        seed=recipe.engine.seed,
    )


def build_classifier(recipe: Recipe) -> Classifier:
    """Make the network of a recipe, with weights drawn from its seed, and what trains it.

    Args:
        recipe: Any.

    Returns:
        The LightningModule.
    """
    require_filled_in(recipe)
    model, optimizer, schedule = recipe.model, recipe.optimizer, recipe.schedule
    torch.manual_seed(derive_seed(recipe.engine.seed))
    network = halonet.create_model(
        model.name,
        num_classes=model.num_classes,
        in_chans=model.in_chans,
        drop_rate=model.drop_rate,
        drop_path_rate=model.drop_path_rate,
        **model.overrides,
    )
    return Classifier(
        network,
        learning_rate=optimizer.learning_rate,
        momentum=optimizer.momentum,
        weight_decay=optimizer.weight_decay,
        decay=optimizer.decay,
        warmup_epochs=schedule.warmup_epochs,
        final_fraction=schedule.final_fraction,
        label_smoothing=recipe.regularization.label_smoothing,
        seed=recipe.engine.seed,
    )


def describe_result(result: dict[str, Any]) -> str:
    """Put a result into a line.

    Args:
        result: As `read_result` returns it.

    Returns:
        Accuracy, loss, time and speed.
    """
    return (
        f"{describe_accuracy(result)} on {result['images']:,} images of {data_of(result)} "
        f"({result['split']}) after {result['epochs']} epochs, {result['seconds']:.0f} s, "
        f"{result['images_per_second']:.0f} images/s"
    )


def data_of(result: dict[str, Any]) -> str:
    """Name what was measured: the variant of a data set that has several."""
    return result.get("variant") or result["data"]


def _job(recipe: Recipe) -> Job:
    return Job(
        recipe=recipe,
        build_data=lambda: build_data(recipe),
        build_task=lambda is_resumed: build_classifier(recipe),
        measure=lambda folder, device: _measure(recipe, folder, device),
        length={"max_epochs": recipe.schedule.epochs},
        command=COMMAND,
        chance=math.log(max(2, recipe.model.num_classes)),
    )


def _measure(recipe: Recipe, folder: Path, device: str) -> dict[str, Any]:
    measured = evaluate(folder, recipe.data.source, recipe.data.test_split, root=recipe.data.root, device=device)
    names = ("top1", "top1_interval", "top5", "loss", "parameters", "images", "classes", "variant")
    return {name: measured[name] for name in names} | {"epochs": recipe.schedule.epochs}


def _anchored(recipe: Recipe) -> Recipe:
    data = recipe.data
    if data.source is None:
        return recipe
    source = data.source if is_named(data.source) else anchored(data.source)
    root = None if data.root is None else anchored(data.root)
    return dataclasses.replace(recipe, data=dataclasses.replace(data, source=source, root=root))
