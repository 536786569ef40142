"""A training run from recipe to result, whatever the task; the only file that knows Lightning's Trainer."""

import dataclasses
import json
import logging
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException

from halonet.errors import UserError, UserNote
from halonet.interrupts import Interrupted, Interrupts, name_of
from halonet.training.checkpoints import (
    BEST,
    LAST,
    AtomicCheckpointIO,
    BestCheckpoint,
    StepCheckpoint,
    differences,
    environment,
    find_checkpoint,
)
from halonet.training.divergence import Divergence
from halonet.training.ema import MovingAverage
from halonet.training.files import explain_full_disk, remove_partial_files, write_atomically
from halonet.training.keyed_data import KeyedData
from halonet.training.progress import Progress
from halonet.training.recipe import EmaSection, EngineSection
from halonet.training.recipes import to_yaml, was_edited
from halonet.training.run_log import RunLog
from halonet.training.session import is_first_process, require_same_recipe, session
from halonet.training.task import Task
from halonet.training.weights import network_state, read_checkpoint, save_weights
from halonet.visual.curves import draw_curves

# The recipe's name: Lightning's.
PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16-mixed": "bf16-mixed",
    "16-mixed": "16-mixed",
}
RUN_FILES = ("recipe.yaml", "result.json", "log.jsonl", "checkpoints", "model.safetensors")


@runtime_checkable
class AnyRecipe(Protocol):
    """What every task's recipe has; it is a dataclass whose sections `model`, `data` and `optimizer` are its own."""

    @property
    def name(self) -> str:
        """The run's name."""
        ...

    @property
    def ema(self) -> EmaSection:
        """The average of the weights."""
        ...

    @property
    def engine(self) -> EngineSection:
        """How the computer does it."""
        ...

    @property
    def model(self) -> Any:
        """The network; `name` and `num_classes` are among its fields."""
        ...

    @property
    def data(self) -> Any:
        """The images; `source` and `test_split` are among its fields."""
        ...

    @property
    def optimizer(self) -> Any:
        """`accumulate` is among its fields."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A recipe, and how to do what it describes.

    Attributes:
        recipe: What to do.
        build_data: Makes the data module; nothing is read yet.
        build_task: Makes the network, with weights drawn from the recipe's seed, and what trains it; it is told whether
            a checkpoint will be loaded.
        measure: Measures the finished run in a folder on a device ("cpu" or "auto"): the fields of `result.json` that
            are the task's own. It may write into the folder.
        length: What ends the training, as Lightning's Trainer takes it: `max_epochs`, or `max_steps`.
        command: What resumes the run with `--resume`, such as "halonet train".
        chance: The loss of a uniform guess, see `Divergence`.
        curves: How `draw_curves` draws the log.
        trainer: More that Lightning's Trainer is to know.
    """

    recipe: AnyRecipe
    build_data: Callable[[], KeyedData]
    build_task: Callable[[bool], Task]
    measure: Callable[[Path, str], dict[str, Any]]
    length: dict[str, int]
    command: str
    chance: float
    curves: dict[str, Any] = dataclasses.field(default_factory=dict)
    trainer: dict[str, Any] = dataclasses.field(default_factory=dict)


def start(
    job: Job,
    run_dir: str | Path | None = None,
    *,
    or_resume: bool = False,
    advice: str | None = None,
    callbacks: Sequence[lightning.Callback] = (),
) -> Path:
    """Train from the beginning to the result.

    The run folder then holds `recipe.yaml` (resolved), `log.jsonl`, `timing.jsonl`, `tensorboard/`,
    `checkpoints/last.ckpt` and `previous.ckpt`, `checkpoints/best.ckpt` (the best validation), `model.safetensors` (the
    last weights, the EMA's if there is one), `curves.png`, `result.json` and what the task measures. A run that is
    interrupted, in whatever way, is completed by `complete`.

    SIGINT, SIGTERM and SIGHUP end it after the optimizer step in progress, with a checkpoint; a second SIGINT ends the
    process at once. One process at a time writes into the folder, which is locked.

    Args:
        job: What to do.
        run_dir: The run folder; None takes `runs/NAME`.
        or_resume: Whether a run of the same recipe that the folder holds already is completed instead.
        advice: What messages tell to do once the run was cut short; None names the command that resumes it.
        callbacks: Of Lightning, to run after those of this package.

    Returns:
        The run folder.

    Raises:
        UserError: The folder already holds a run or is in use by another process, the data cannot be read or does not
            fit the model, the training diverges, or the disk is full.
        Interrupted: A signal ended it.
    """
    folder = run_folder(job.recipe, run_dir)
    is_begun = or_resume and os.path.isfile(folder / "recipe.yaml")
    if is_begun:
        require_same_recipe(folder, job.recipe, job.command)
        if (folder / "result.json").is_file():
            return folder
    with session(folder, job.command, advice) as interrupts:
        if is_first_process() and not is_begun:
            _refuse_used(folder, job)
        return _run(folder, job, callbacks, interrupts)


def complete(
    run_dir: str | Path, make_job: Callable[[Path], Job], *, callbacks: Sequence[lightning.Callback] = ()
) -> Path:
    """Complete a run that was interrupted; on a CPU it ends with the bits of one that was not.

    That holds for the same world size, threads, versions and instruction set; a `UserNote` warning names each that
    differs. If the last checkpoint is damaged, the run goes on from the one before, and a `UserNote` warning says so. A
    finished run is left as it is.

    Args:
        run_dir: The run folder.
        make_job: Makes the job from the folder's recipe.yaml.
        callbacks: As in `start`.

    Returns:
        The run folder.

    Raises:
        UserError: The folder holds no run, or one of the errors of `start`.
        Interrupted: A signal ended it.
    """
    folder = Path(run_dir)
    if not os.path.isfile(folder / "recipe.yaml"):
        raise UserError(f"{folder} holds no run to resume: it has no recipe.yaml; start one with --run-dir {folder}")
    job = make_job(folder / "recipe.yaml")
    if (folder / "result.json").is_file():
        checkpoint = {}
        with suppress(UserError):  # a finished run needs no checkpoint any more
            checkpoint = read_checkpoint(folder / "checkpoints" / "last.ckpt")
        _refuse_edited(folder, checkpoint, job.recipe)
        return folder
    with session(folder, job.command) as interrupts:
        return _run(folder, job, callbacks, interrupts)


def run_folder(recipe: AnyRecipe, run_dir: str | Path | None) -> Path:
    """Say where a recipe's run lies.

    Args:
        recipe: Any.
        run_dir: The folder, or None for `runs/NAME`.

    Raises:
        UserError: Neither the folder nor the recipe has a name.
    """
    if run_dir is not None:
        return Path(run_dir)
    if not recipe.name:
        raise UserError("the recipe has no name, so its run has no folder below runs/: name it, or give --run-dir")
    return Path("runs") / recipe.name


def read_result(run_dir: str | Path) -> dict[str, Any]:
    """Read what a finished run gave.

    Args:
        run_dir: The run folder.

    Returns:
        The content of `result.json`.
    """
    return json.loads((Path(run_dir) / "result.json").read_text(encoding="utf-8"))


def anchored(source: str) -> str:
    """Name a data folder so that a run can be resumed from any working directory; names of data sets stay."""
    path = Path(source)
    with suppress(RuntimeError):  # there is no such user: reading the data says so
        path = path.expanduser()
    return str(path.resolve()) if os.path.exists(path) else source


def _refuse_used(folder: Path, job: Job) -> None:
    held = [name for name in RUN_FILES if (folder / name).exists()]
    if held:
        raise UserError(
            f"{folder} already holds a run ({held[0]}): continue it with {job.command} --resume {folder}, "
            "or choose another folder with --run-dir"
        )


def _refuse_edited(folder: Path, checkpoint: dict[str, Any], recipe: AnyRecipe) -> None:
    """Refuse to call a finished training the result of a recipe that was edited since."""
    if "recipe" in checkpoint and was_edited(checkpoint["recipe"], recipe, ("root", "source")):
        raise UserError(
            f"{folder} holds a finished run, but its recipe.yaml was edited since: restore it, or train the edited one "
            f"in another folder, with {folder / 'recipe.yaml'} --run-dir OTHER"
        )


def _run(folder: Path, job: Job, callbacks: Sequence[lightning.Callback], interrupts: Interrupts) -> Path:
    """Do what is left of a run: all of it, if the folder has no checkpoint."""
    begin = time.monotonic()
    if is_first_process():
        remove_partial_files(folder)
    data = job.build_data()
    data.setup()
    recipe = job.recipe
    if len(data.class_names) != recipe.model.num_classes:
        raise UserError(
            f"{recipe.data.source!r} has {len(data.class_names)} classes, but model.num_classes is "
            f"{recipe.model.num_classes}: set it to {len(data.class_names)}"
        )
    path, checkpoint, note = find_checkpoint(folder / "checkpoints")
    if note and is_first_process():
        warnings.warn(UserNote(note), stacklevel=3)
    if checkpoint.get("finished"):
        _refuse_edited(folder, checkpoint, recipe)
    else:
        known = {name: checkpoint[name] for name in ("environment", "recipe") if checkpoint}
        del checkpoint  # as large as the model, and read again by the Trainer
        try:
            _fit(folder, job, data, path, known, callbacks, interrupts)
        finally:
            interrupts.postponed = False
        if interrupts.number is not None:
            place = "after the last step, with only the measurement left to do"
            raise Interrupted(f"stopped by {name_of(interrupts.number)} {place}", interrupts.number)
        begin = time.monotonic()
    if is_first_process():
        _finish(folder, job, begin)
    return folder


def _fit(
    folder: Path,
    job: Job,
    data: KeyedData,
    checkpoint: Path | None,
    resumed_from: dict[str, Any],
    callbacks: Sequence[lightning.Callback],
    interrupts: Interrupts,
) -> None:
    task = job.build_task(checkpoint is not None)
    if job.recipe.engine.compile:
        task.network.compile()
    with _quiet_lightning():
        trainer = _make_trainer(folder, job, checkpoint, callbacks, interrupts)
        if resumed_from:
            _warn_of_differences(resumed_from, job.recipe, trainer)
        # Written only now that all is known to fit, so that a mistake leaves no folder to be refused.
        elif trainer.is_global_zero:
            _write_recipe(folder, job.recipe)
        with _keyboard_interrupt_raised():
            trainer.fit(task, data, ckpt_path=checkpoint, weights_only=True)


def _write_recipe(folder: Path, recipe: AnyRecipe) -> None:
    try:
        write_atomically(folder / "recipe.yaml", lambda file: file.write(to_yaml(recipe).encode()))
    except OSError as error:
        raise UserError(f"cannot write into run folder {folder}: {error.strerror}") from error


def _make_trainer(
    folder: Path, job: Job, checkpoint: Path | None, callbacks: Sequence[lightning.Callback], interrupts: Interrupts
) -> lightning.Trainer:
    recipe, engine = job.recipe, job.recipe.engine
    last = folder / "checkpoints" / LAST
    is_damaged = checkpoint is not None and checkpoint != last and last.exists()
    own = [
        # Comes first to save the raw weights of the end before EMA's callback overwrites them.
        StepCheckpoint(last, engine.checkpoint_every_steps, to_yaml(recipe), interrupts),
        *([MovingAverage(recipe.ema.decay)] if recipe.ema.decay else []),
        BestCheckpoint(folder / "checkpoints" / BEST),
        RunLog(folder, engine.log_every_steps, Divergence(job.chance)),
        Progress(),
    ]
    try:
        return lightning.Trainer(
            accelerator=engine.accelerator,
            devices=engine.devices,
            num_nodes=engine.nodes,
            strategy=engine.strategy,
            precision=PRECISIONS[engine.precision],
            **job.length,
            **job.trainer,
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


def _warn_of_differences(resumed_from: dict[str, Any], recipe: AnyRecipe, trainer: lightning.Trainer) -> None:
    now = environment(trainer.world_size, trainer.strategy.root_device)
    changes = differences(resumed_from["environment"], now)
    if was_edited(resumed_from["recipe"], recipe):
        changes.append("recipe.yaml was edited")
    if changes and trainer.is_global_zero:
        note = "the resumed run will not end with the bits of an uninterrupted one: " + "; ".join(changes)
        warnings.warn(UserNote(note), stacklevel=4)


def _finish(folder: Path, job: Job, begin: float) -> None:
    """Write what a finished training leaves; all of it follows from the last checkpoint and the log."""
    recipe = job.recipe
    divergence = Divergence(job.chance)
    divergence.judge_log(folder / "log.jsonl")
    checkpoint = read_checkpoint(folder / "checkpoints" / LAST)
    save_weights(folder / "model.safetensors", network_state(checkpoint), checkpoint["halonet"])
    with explain_full_disk(folder / "curves.png"):
        draw_curves(folder / "log.jsonl", folder / "curves.png", **job.curves)
    measured = job.measure(folder, "cpu" if recipe.engine.accelerator == "cpu" else "auto")
    divergence.judge_end({"the test loss": measured["loss"]} if "loss" in measured else {})
    clock = checkpoint["callbacks"]["RunLog"]["clock"]
    surroundings = dict(checkpoint["environment"])
    result = measured | {
        "images_per_second": clock["train_images"] / clock["train_seconds"],
        "seconds": clock["seconds"] + time.monotonic() - begin,
        "recipe": recipe.name,
        "model": recipe.model.name,
        "data": recipe.data.source,
        "split": recipe.data.test_split,
        "steps": checkpoint["global_step"],
        "seed": recipe.engine.seed,
        "best": checkpoint["callbacks"]["BestCheckpoint"]["best"],
        **{name: surroundings.pop(name) for name in ("device", "hardware", "threads", "world_size")},
        "versions": surroundings,
    }
    text = json.dumps(result, indent=2) + "\n"
    write_atomically(folder / "result.json", lambda file: file.write(text.encode()))


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence what Lightning says about itself and what it warns of without cause here."""
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
    """Let a signal end a run as it ends anything else: Lightning would exit, and ignore Ctrl-C from then on."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise error.__context__ from None
