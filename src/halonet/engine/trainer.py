"""Builds Lightning's Trainer for every task; no other file does."""

import logging
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException

from halonet.engine.checkpoints import (
    BEST,
    LAST,
    AtomicCheckpointIO,
    BestCheckpoint,
    StepCheckpoint,
    differences,
    environment,
)
from halonet.engine.data import KeyedData
from halonet.engine.divergence import Divergence
from halonet.engine.ema import MovingAverage
from halonet.engine.files import write_atomically
from halonet.engine.log import RunLog
from halonet.engine.module import TrainingModule
from halonet.engine.progress import Progress
from halonet.engine.task import Task
from halonet.errors import UserError, UserNote
from halonet.interrupts import Interrupts
from halonet.recipes.load import to_yaml, was_edited
from halonet.recipes.schema import AnyRecipe

# Lightning's names, by the recipe's.
PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16-mixed": "bf16-mixed",
    "16-mixed": "16-mixed",
}


def fit(
    folder: Path,
    task: Task,
    module: TrainingModule,
    data: KeyedData,
    checkpoint: Path | None,
    begun_with: dict[str, Any],
    callbacks: Sequence[lightning.Callback],
    interrupts: Interrupts,
) -> None:
    """Train to the end, from a checkpoint or from the first step.

    Args:
        folder: The run folder.
        task: What to train.
        module: The training module of the task.
        data: The data module of the task.
        checkpoint: The file to continue from, or None.
        begun_with: The `environment` and `recipe` in that file; otherwise empty.
        callbacks: Lightning callbacks to run after those of this package.
        interrupts: The signal handlers.

    Raises:
        UserError: The engine section of the recipe does not work here, the training diverges, or the disk is full.
        Interrupted: A signal ended the run.
    """
    if task.recipe.engine.compile:
        module.network.compile()
    with _quiet_lightning():
        trainer = _make_trainer(folder, task, checkpoint, callbacks, interrupts)
        if begun_with:
            _warn_of_differences(begun_with, task.recipe, trainer)
        # Only now are all parts known to fit: a mistake must not leave a folder that the next attempt would refuse.
        elif trainer.is_global_zero:
            _write_recipe(folder, task.recipe)
        with _keyboard_interrupt_raised():
            trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)


def _write_recipe(folder: Path, recipe: AnyRecipe) -> None:
    try:
        write_atomically(folder / "recipe.yaml", lambda file: file.write(to_yaml(recipe).encode()))
    except OSError as error:
        raise UserError(f"cannot write into run folder {folder}: {error.strerror}") from error


def _make_trainer(
    folder: Path, task: Task, checkpoint: Path | None, callbacks: Sequence[lightning.Callback], interrupts: Interrupts
) -> lightning.Trainer:
    recipe, engine = task.recipe, task.recipe.engine
    last = folder / "checkpoints" / LAST
    is_damaged = checkpoint is not None and checkpoint != last and last.exists()
    own = [
        # Must come first: at the end it saves the raw weights, which EMA's callback then overwrites.
        StepCheckpoint(last, engine.checkpoint_every_steps, to_yaml(recipe), interrupts),
        *([MovingAverage(recipe.ema.decay)] if recipe.ema.decay else []),
        BestCheckpoint(folder / "checkpoints" / BEST),
        RunLog(folder, engine.log_every_steps, Divergence(task.guess_loss)),
        Progress(),
    ]
    try:
        return lightning.Trainer(
            accelerator=engine.accelerator,
            devices=engine.devices,
            num_nodes=engine.nodes,
            strategy=engine.strategy,
            precision=PRECISIONS[engine.precision],
            **task.trainer_options,
            accumulate_grad_batches=recipe.optimizer.accumulate,
            gradient_clip_val=engine.clip_gradient,
            callbacks=[*own, *callbacks],
            plugins=[AtomicCheckpointIO(damaged=last if is_damaged else None)],
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError) as error:
        raise UserError(f"the recipe's engine section does not work here: {error}") from error


def _warn_of_differences(begun_with: dict[str, Any], recipe: AnyRecipe, trainer: lightning.Trainer) -> None:
    now = environment(trainer.world_size, trainer.strategy.root_device)
    changes = differences(begun_with["environment"], now)
    if was_edited(begun_with["recipe"], recipe):
        changes.append("recipe.yaml was edited")
    if changes and trainer.is_global_zero:
        note = "the resumed run will not end with exactly the weights of an uninterrupted one: " + "; ".join(changes)
        warnings.warn(UserNote(note), stacklevel=4)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence messages of Lightning about itself, and warnings that are groundless here."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Loading in the training process is the recipe's choice.
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            # The position is in the data module's state, not in the loader's.
            warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")
            # No validation is the recipe's choice.
            warnings.filterwarnings("ignore", ".*have no `val_dataloader`.*")
            # Lightning's own use of PyTorch.
            warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _keyboard_interrupt_raised() -> Iterator[None]:
    """Raise the KeyboardInterrupt for which Lightning would exit the process and ignore Ctrl-C from then on."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise error.__context__ from None
