"""A training run from recipe to result; the only file that knows Lightning's Trainer."""

import dataclasses
import json
import logging
import signal
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only

import halonet
from halonet.data import derive_seed
from halonet.data.sources import EMBEDDED
from halonet.errors import UserError, UserNote
from halonet.training.checkpoints import AtomicCheckpointIO, BestCheckpoint, StepCheckpoint, differences, environment
from halonet.training.classifier import Classifier
from halonet.training.datamodule import ClassificationData
from halonet.training.ema import MovingAverage
from halonet.training.evaluation import evaluate
from halonet.training.files import explain_full_disk, write_atomically
from halonet.training.progress import Progress
from halonet.training.recipe import Recipe
from halonet.training.recipes import resolve, to_yaml
from halonet.training.run_log import RunLog
from halonet.training.weights import network_state, read_checkpoint, save_weights, with_tuples
from halonet.visual.curves import draw_curves

# The recipe's name: Lightning's.
PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16-mixed": "bf16-mixed",
    "16-mixed": "16-mixed",
}
RUN_FILES = ("recipe.yaml", "result.json", "log.jsonl", "checkpoints", "model.safetensors")


def train(recipe: Recipe, run_dir: str | Path | None = None, *, callbacks: Sequence[lightning.Callback] = ()) -> Path:
    """Train a recipe from the beginning to its result.

    The run folder then holds `recipe.yaml` (resolved), `log.jsonl`, `timing.jsonl`, `tensorboard/`,
    `checkpoints/last.ckpt`, `checkpoints/best.ckpt` (the best validation), `model.safetensors` (the last weights, the
    EMA's if there is one), `curves.png` and `result.json`. A run that is interrupted, in whatever way, is completed by
    `resume`.

    Args:
        recipe: What to do.
        run_dir: The run folder; None takes `runs/NAME`.
        callbacks: Of Lightning, to run after those of this package.

    Returns:
        The run folder.

    Raises:
        UserError: The folder already holds a run, the data cannot be read or does not fit the model, the training
            diverges, or the disk is full.
    """
    folder = Path(run_dir) if run_dir is not None else Path("runs") / recipe.name
    if _is_first_process():
        _refuse_used(folder)
    return _run(folder, _anchored(recipe), callbacks)


def resume(run_dir: str | Path, *, callbacks: Sequence[lightning.Callback] = ()) -> Path:
    """Complete a run that was interrupted; on a CPU it ends with the bits of one that was not.

    That holds for the same world size, threads, versions and instruction set; a `UserNote` warning names each that
    differs. A finished run is left as it is.

    Args:
        run_dir: The run folder.
        callbacks: As in `train`.

    Returns:
        The run folder.

    Raises:
        UserError: The folder holds no run, or one of the errors of `train`.
    """
    folder = Path(run_dir)
    if not (folder / "recipe.yaml").is_file():
        raise UserError(f"{folder} holds no run to resume: it has no recipe.yaml; start one with --run-dir {folder}")
    if (folder / "result.json").is_file():
        return folder
    return _run(folder, resolve(folder / "recipe.yaml"), callbacks)


def build_data(recipe: Recipe) -> ClassificationData:
    """Make the data module of a recipe.

    Args:
        recipe: Any.

    Returns:
        The data module; nothing is read yet.
    """
    data = recipe.data
    return ClassificationData(
        data.source,
        data.augmentation,
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
    model, optimizer, schedule = recipe.model, recipe.optimizer, recipe.schedule
    torch.manual_seed(derive_seed(recipe.engine.seed))
    network = halonet.create_model(
        model.name,
        num_classes=model.num_classes,
        in_chans=model.in_chans,
        drop_rate=model.drop_rate,
        drop_path_rate=model.drop_path_rate,
        **with_tuples(model.overrides),
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


def read_result(run_dir: str | Path) -> dict[str, Any]:
    """Read what a finished run gave.

    Args:
        run_dir: The run folder.

    Returns:
        The content of `result.json`.
    """
    return json.loads((Path(run_dir) / "result.json").read_text(encoding="utf-8"))


def describe_result(result: dict[str, Any]) -> str:
    """Put a result into a line.

    Args:
        result: As `read_result` returns it.

    Returns:
        Accuracy, loss, time and speed.
    """
    return (
        f"top-1 {result['top1']:.2f} %, top-5 {result['top5']:.2f} %, loss {result['loss']:.4f} on {result['data']} "
        f"({result['split']}) after {result['epochs']} epochs, {result['seconds']:.0f} s, "
        f"{result['images_per_second']:.0f} images/s"
    )


def _anchored(recipe: Recipe) -> Recipe:
    """Name a data folder so that the run can be resumed from any working directory."""
    source = recipe.data.source
    path = Path(source).expanduser()
    if source == EMBEDDED or source.startswith(("hfds/", "torch/")) or not path.exists():
        return recipe
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, source=str(path.resolve())))


def _is_first_process() -> bool:
    """Known from the launcher's environment before Lightning has started."""
    return getattr(rank_zero_only, "rank", 0) == 0


def _refuse_used(folder: Path) -> None:
    held = [name for name in RUN_FILES if (folder / name).exists()]
    if held:
        raise UserError(
            f"{folder} already holds a run ({held[0]}): continue it with --resume {folder}, "
            "or choose another folder with --run-dir"
        )


def _run(folder: Path, recipe: Recipe, callbacks: Sequence[lightning.Callback]) -> Path:
    """Do what is left of a run: all of it, if the folder has no checkpoint."""
    start = time.monotonic()
    last = folder / "checkpoints" / "last.ckpt"
    data = build_data(recipe)
    data.setup()
    if len(data.class_names) != recipe.model.num_classes:
        raise UserError(
            f"{recipe.data.source!r} has {len(data.class_names)} classes, but model.num_classes is "
            f"{recipe.model.num_classes}: set it to {len(data.class_names)}"
        )
    checkpoint = read_checkpoint(last) if last.exists() else {}
    with explain_full_disk(folder):
        if not checkpoint.get("finished"):
            known = {name: checkpoint[name] for name in ("environment", "recipe") if checkpoint}
            del checkpoint  # as large as the model, and read again by the Trainer
            _fit(folder, recipe, data, known, callbacks)
            start = time.monotonic()
        if _is_first_process():
            _finish(folder, recipe, start)
    return folder


def _fit(
    folder: Path,
    recipe: Recipe,
    data: ClassificationData,
    resumed_from: dict[str, Any],
    callbacks: Sequence[lightning.Callback],
) -> None:
    classifier = build_classifier(recipe)
    if recipe.engine.compile:
        classifier.network.compile()
    with _quiet_lightning():
        trainer = _make_trainer(folder, recipe, callbacks)
        if resumed_from:
            _warn_of_differences(resumed_from, recipe, trainer)
        # Written only now that all is known to fit, so that a mistake leaves no folder to be refused.
        elif trainer.is_global_zero:
            _write_recipe(folder, recipe)
        last = folder / "checkpoints" / "last.ckpt" if resumed_from else None
        with _keyboard_interrupt_raised(folder):
            trainer.fit(classifier, data, ckpt_path=last, weights_only=True)


def _write_recipe(folder: Path, recipe: Recipe) -> None:
    try:
        write_atomically(folder / "recipe.yaml", lambda file: file.write(to_yaml(recipe).encode()))
    except OSError as error:
        raise UserError(f"cannot write into run folder {folder}: {error.strerror}") from error


def _make_trainer(folder: Path, recipe: Recipe, callbacks: Sequence[lightning.Callback]) -> lightning.Trainer:
    engine = recipe.engine
    own = [
        # Comes first to save the raw weights of the end before EMA's callback overwrites them.
        StepCheckpoint(folder / "checkpoints" / "last.ckpt", engine.checkpoint_every_steps, to_yaml(recipe)),
        *([MovingAverage(recipe.ema.decay)] if recipe.ema.decay else []),
        BestCheckpoint(folder / "checkpoints" / "best.ckpt"),
        RunLog(folder, engine.log_every_steps),
        Progress(),
    ]
    try:
        return lightning.Trainer(
            accelerator=engine.accelerator,
            devices=engine.devices,
            num_nodes=engine.nodes,
            strategy=engine.strategy,
            precision=PRECISIONS[engine.precision],
            max_epochs=recipe.schedule.epochs,
            accumulate_grad_batches=recipe.optimizer.accumulate,
            gradient_clip_val=engine.clip_gradient,
            callbacks=[*own, *callbacks],
            plugins=[AtomicCheckpointIO()],
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError) as error:
        raise UserError(f"the recipe's engine section does not work here: {error}") from error


def _warn_of_differences(resumed_from: dict[str, Any], recipe: Recipe, trainer: lightning.Trainer) -> None:
    now = environment(trainer.world_size, trainer.strategy.root_device)
    changes = differences(resumed_from["environment"], now)
    if resumed_from["recipe"] != to_yaml(recipe):
        changes.append("recipe.yaml was edited")
    if changes and trainer.is_global_zero:
        note = "the resumed run will not end with the bits of an uninterrupted one: " + "; ".join(changes)
        warnings.warn(UserNote(note), stacklevel=4)


def _finish(folder: Path, recipe: Recipe, start: float) -> None:
    """Write what a finished training leaves; all of it follows from the last checkpoint and the log."""
    checkpoint = read_checkpoint(folder / "checkpoints" / "last.ckpt")
    save_weights(folder / "model.safetensors", network_state(checkpoint), checkpoint["halonet"])
    draw_curves(folder / "log.jsonl", folder / "curves.png")
    measured = evaluate(folder, device="cpu" if recipe.engine.accelerator == "cpu" else "auto")
    clock = checkpoint["callbacks"]["RunLog"]["clock"]
    surroundings = dict(checkpoint["environment"])
    result = {name: measured[name] for name in ("top1", "top5", "loss")} | {
        "images_per_second": clock["train_images"] / clock["train_seconds"],
        "parameters": measured["parameters"],
        "seconds": clock["seconds"] + time.monotonic() - start,
        "recipe": recipe.name,
        "model": recipe.model.name,
        "data": recipe.data.source,
        "split": recipe.data.test_split,
        "images": measured["images"],
        "epochs": recipe.schedule.epochs,
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
def _keyboard_interrupt_raised(folder: Path) -> Iterator[None]:
    """Let Ctrl-C end a run as it ends anything else: Lightning would exit, and ignore the key from then on."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt(f"interrupted: continue with --resume {folder}") from None
