"""The training of a detector, from recipe to result."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch

from halonet.data import derive_seed, nuclei
from halonet.detection.checkpoint import initialize
from halonet.detection.datamodule import DetectionData
from halonet.detection.detector import BoxDetector, Detector
from halonet.detection.evaluation import KINDS, evaluate
from halonet.detection.from_data import fill_in, require_filled_in
from halonet.detection.mask_rcnn import create_detector
from halonet.detection.recipe import DetectionRecipe
from halonet.training.engine import Job, anchored, complete, refuse_used, run_folder, start
from halonet.training.recipes import resolve
from halonet.training.session import as_begun, is_first_process

COMMAND = "halonet detect train"
SECTION_ONLY = (
    "name",
    "num_classes",
    "in_chans",
    "init",
    "overrides",
    "masks",
)  # of `DetectorSection`; the rest is the config's


def train(
    recipe: DetectionRecipe,
    run_dir: str | Path | None = None,
    *,
    or_resume: bool = False,
    callbacks: Sequence[lightning.Callback] = (),
) -> Path:
    """Train a recipe from the beginning to its result.

    The run folder then holds what a classifier's does (see `halonet.training.train`), and `detections.json` (the
    detections in the test images, in COCO's results format) and `precision_recall.png`. A run that is interrupted, in
    whatever way, is completed by `resume`.

    Args:
        recipe: What to do; what it leaves null follows from the data, see `halonet.detection.fill_in`.
        run_dir: The run folder; None takes `runs/NAME`.
        or_resume: Whether a run of the same recipe that the folder holds already is completed instead.
        callbacks: Of Lightning, to run after those of this package.

    Returns:
        The run folder.

    Raises:
        UserError: The folder already holds a run or is in use by another process, the data or the initial weights
            cannot be read or do not fit, the training diverges, or the disk is full.
        Interrupted: A signal ended it; a KeyboardInterrupt.
    """
    folder, recipe = run_folder(recipe, run_dir), _anchored(recipe)
    refuse_used(folder, COMMAND, or_resume=or_resume)
    if or_resume:
        recipe = as_begun(recipe, folder)
    say = print if is_first_process() else lambda line: None
    return start(_job(fill_in(recipe, say=say)), folder, or_resume=or_resume, callbacks=callbacks)


def resume(run_dir: str | Path, *, callbacks: Sequence[lightning.Callback] = ()) -> Path:
    """Complete a run that was interrupted; on a CPU it ends with the bits of one that was not.

    That holds for the same world size, threads, versions and instruction set; a `UserNote` warning names each that
    differs. A finished run is left as it is. The file of initial weights is no longer needed.

    Args:
        run_dir: The run folder.
        callbacks: As in `train`.

    Returns:
        The run folder.

    Raises:
        UserError: The folder holds no run, or one of the errors of `train`.
    """
    return complete(run_dir, lambda path: _job(resolve(path, schema=DetectionRecipe)), callbacks=callbacks)


def build_data(recipe: DetectionRecipe) -> DetectionData:
    """Make the data module of a recipe.

    Args:
        recipe: Any.

    Returns:
        The data module; nothing is read yet.
    """
    require_filled_in(recipe)
    data = recipe.data
    return DetectionData(
        data.source,
        data.augmentation,
        batch_size=recipe.optimizer.batch_size,
        validation_split=data.validation_split,
        test_split=data.test_split,
        repeats=data.repeats,
        skip_empty=data.skip_empty,
        masks=draws_masks(recipe),
        hold_out=data.hold_out,
        workers=data.workers,
        seed=recipe.engine.seed,
    )


def build_detector(recipe: DetectionRecipe, *, initialized: bool = False) -> Detector:
    """Make the network of a recipe, with weights drawn from its seed or read from a file, and what trains it.

    Args:
        recipe: Any.
        initialized: Whether a checkpoint will be loaded, so that the recipe's initial weights need not be read.

    Returns:
        The LightningModule.

    Raises:
        UserError: The initial weights cannot be read or do not fit, or a value is out of its range.
    """
    require_filled_in(recipe)
    model, optimizer = recipe.model, recipe.optimizer
    torch.manual_seed(derive_seed(recipe.engine.seed))
    settings = {
        field.name: getattr(model, field.name) for field in dataclasses.fields(model) if field.name not in SECTION_ONLY
    }
    network = create_detector(
        model.name,
        model.num_classes,
        recipe.data.augmentation,
        masks=draws_masks(recipe),
        backbone_overrides=model.overrides,
        **settings,
    )
    if model.init is not None and not initialized:
        initialize(network, model.init)
    return (Detector if draws_masks(recipe) else BoxDetector)(
        network,
        factor=recipe.schedule.factor,
        learning_rate=optimizer.learning_rate,
        momentum=optimizer.momentum,
        weight_decay=optimizer.weight_decay,
        decay=optimizer.decay,
        seed=recipe.engine.seed,
    )


def draws_masks(recipe: DetectionRecipe) -> bool:
    """Whether a recipe's detector is a Mask R-CNN: unless it says that it is not."""
    return recipe.model.masks is not False


def describe_result(result: dict[str, Any]) -> str:
    """Put a result into a line.

    Args:
        result: As `halonet.training.engine.read_result` returns it.

    Returns:
        Average precision, time and speed.
    """
    measured = ", ".join(
        f"{kind} AP {describe_value(result[f'{kind}_ap'])} (AP50 {describe_value(result[f'{kind}_ap50'])})"
        for kind in KINDS
        if f"{kind}_ap" in result
    )
    return (
        f"{measured} on {result['data']} ({result['split']}) after {result['steps']} steps, {result['seconds']:.0f} s, "
        f"{result['images_per_second']:.2g} images/s"
    )


def describe_value(value: float | None) -> str:
    """Print a percentage, or a dash where there is nothing to measure."""
    return "-" if value is None else f"{value:.1f}"


def _job(recipe: DetectionRecipe) -> Job:
    return Job(
        recipe=recipe,
        build_data=lambda: build_data(recipe),
        build_task=lambda is_resumed: build_detector(recipe, initialized=is_resumed),
        measure=_measure,
        length={"max_steps": recipe.schedule.steps, "max_epochs": -1},
        command=COMMAND,
        # Of the class of a box; of object or not, and of a pixel inside or outside; and one for the two places.
        chance=math.log(recipe.model.num_classes + 1) + (1 + draws_masks(recipe)) * math.log(2) + 1,
        curves={
            "scores": {"box_ap": "boxes"} | ({"mask_ap": "masks"} if draws_masks(recipe) else {}),
            "title": "average precision (%)",
        },
        trainer={"sync_batchnorm": recipe.model.batch_norm == "synchronized"},
    )


def _measure(folder: Path, device: str) -> dict[str, Any]:
    measured = evaluate(
        folder,
        device=device,
        results_file=folder / "detections.json",
        plot_file=folder / "precision_recall.png",
    )
    replaced = ("images_per_second", "seconds", "checkpoint", "data", "split", "device")
    return {name: value for name, value in measured.items() if name not in replaced}


def _anchored(recipe: DetectionRecipe) -> DetectionRecipe:
    data, model = recipe.data, recipe.model
    if data.source not in (None, nuclei.NAME):
        data = dataclasses.replace(data, source=anchored(data.source))
    if model.init is not None:
        model = dataclasses.replace(model, init=anchored(model.init))
    return dataclasses.replace(recipe, data=data, model=model)
