"""Checkpoints from which an interrupted run continues bit for bit, and the environment that this depends on."""

import os
import platform
import signal
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import numpy
import timm
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

import halonet
from halonet.engine.checksums import DamagedFileError, save_with_checksum
from halonet.engine.files import write_atomically
from halonet.engine.module import Batch, TrainingModule
from halonet.engine.weights import read_checkpoint
from halonet.errors import UserError, UserNote
from halonet.interrupts import Interrupted, Interrupts, name_of

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
_PATIENCE = 5.0  # seconds after a signal until the user is told that a validation delays the end


class FoundCheckpoint(NamedTuple):
    """A checkpoint to resume from.

    Attributes:
        path: The file, or None if there is no checkpoint.
        content: What the file holds; empty if there is no checkpoint.
        note: What to tell the user about a damaged checkpoint, if there is one.
    """

    path: Path | None
    content: dict[str, Any]
    note: str


def find_checkpoint(folder: Path) -> FoundCheckpoint:
    """Read the latest undamaged checkpoint to resume from.

    Raises:
        UserError: All checkpoints are damaged, or one cannot be read for another reason.
    """
    damage: list[str] = []
    for path in (folder / LAST, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            checkpoint = read_checkpoint(path)
        except DamagedFileError as error:
            damage.append(str(error))
            continue
        step = checkpoint.get("global_step")
        note = f"{damage[0]}; the run goes on from the checkpoint before it, after step {step}" if damage else ""
        return FoundCheckpoint(path, checkpoint, note)
    if damage:
        raise UserError(
            f"{'; '.join(damage)}; there is no other checkpoint: restore one, or remove {folder} to resume from the "
            "first step"
        )
    return FoundCheckpoint(None, {}, "")


def callback_state(checkpoint: dict[str, Any], callback: type[lightning.Callback]) -> dict[str, Any]:
    """Return what a callback saved; Lightning keeps it under the name of the callback's class."""
    return checkpoint["callbacks"][callback.__qualname__]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes atomically and with a checksum; reads tensors and plain values only, never code.

    Lightning's own plugin writes to the temporary directory first, from where the last step may be a copy between file
    systems.

    Args:
        damaged: A damaged checkpoint, to be replaced without keeping it. Otherwise the `last.ckpt` that is replaced is
            kept as `previous.ckpt`.
    """

    def __init__(self, damaged: Path | None = None):
        super().__init__()
        self._damaged = damaged

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        """Replace a checkpoint in one step; Lightning gives no `storage_options`.

        Raises:
            UserError: The disk is full. The previous checkpoint is untouched.
        """
        path = Path(path)
        keeps = path.name == LAST and path != self._damaged
        previous = path.with_name(PREVIOUS) if keeps else None
        write_atomically(path, lambda file: save_with_checksum(checkpoint, file), previous=previous)
        if path == self._damaged:
            self._damaged = None

    def load_checkpoint(
        self, path: str | os.PathLike, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint, always as if `weights_only` were True.

        Raises:
            UserError: The file is missing, damaged, not a checkpoint, or holds code.
        """
        return read_checkpoint(Path(path), map_location)


class StepCheckpoint(lightning.Callback):
    """Writes the checkpoint to resume from, always between two optimizer steps.

    When a training batch starts, the logging, the EMA and the validation of the previous step are done. Nothing is
    saved within an accumulated step, because checkpoints hold no gradients.

    Args:
        path: The checkpoint; each one replaces the one before.
        every_steps: Optimizer steps between checkpoints; one more is written at the start of each epoch.
        recipe: The run's resolved recipe as YAML, kept in the checkpoint.
        interrupts: Postpones signals to the end of the current optimizer step, when all processes save and raise
            `Interrupted`; None leaves signals alone.
    """

    def __init__(self, path: Path, every_steps: int, recipe: str = "", interrupts: Interrupts | None = None):
        self.path = path
        self.every_steps = every_steps
        self.recipe = recipe
        self._interrupts = interrupts
        self._latest_step = 0
        self._finished = False
        self._is_first_batch = True
        self._has_explained = False

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Postpone signals; remember which step needs no checkpoint because it was just loaded."""
        self._latest_step = trainer.global_step
        if self._interrupts is not None:
            self._interrupts.postponed = True
            # Lightning's SIGTERM handler would wait for the other processes and end the run without saving.
            self._interrupts.install()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Save if a step is complete and due, or if a signal ends the run."""
        is_new = trainer.global_step != self._latest_step
        is_due = is_new and (batch_idx == 0 or trainer.global_step % self.every_steps == 0)
        self._latest_step = trainer.global_step
        if is_due:
            trainer.save_checkpoint(self.path)
        if self._interrupts is not None and (is_new or self._is_first_batch):
            self._is_first_batch = False
            # All processes must decide alike, whichever of them received the signal.
            if trainer.strategy.reduce_boolean_decision(self._interrupts.number is not None, all=False):
                if is_new and not is_due:
                    trainer.save_checkpoint(self.path)
                number = self._interrupts.number or signal.SIGTERM
                step = trainer.global_step
                when = f"after step {step}, which is saved" if step else "before the first step"
                raise Interrupted(f"stopped by {name_of(number)} {when}", number)

    def on_validation_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Explain why a run that received a signal has not ended yet."""
        interrupts = self._interrupts
        if interrupts is None or interrupts.number is None or self._has_explained:
            return
        if time.monotonic() - interrupts.since > _PATIENCE:
            self._has_explained = True
            note = f"{name_of(interrupts.number)}: the run ends after this validation; Ctrl-C twice ends it at once"
            warnings.warn(UserNote(note), stacklevel=2)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save the final state. This callback comes before EMA's, which overwrites the raw weights here."""
        self._finished = True
        trainer.save_checkpoint(self.path)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what a resuming process compares itself with."""
        checkpoint["environment"] = environment(trainer.world_size, pl_module.device)
        checkpoint["recipe"] = self.recipe
        checkpoint["finished"] = self._finished


class BestCheckpoint(lightning.Callback):
    """Keeps the checkpoint with the best validation score (the first of equals): for choosing, not for resuming.

    Args:
        path: The checkpoint; each one replaces the one before.
    """

    def __init__(self, path: Path):
        self.path = path
        self.best: dict[str, float] = {}

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save if this validation is better than all before."""
        assert isinstance(pl_module, TrainingModule)
        name, score = f"validation_{pl_module.score}", pl_module.validation_metrics[pl_module.score]
        if not trainer.sanity_checking and score > self.best.get(name, -1.0):
            self.best = {"epoch": trainer.current_epoch, name: score}
            trainer.save_checkpoint(self.path)

    def state_dict(self) -> dict[str, Any]:
        """Return the best validation so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best validation so far."""
        self.best = state_dict["best"]


def environment(world_size: int, device: torch.device) -> dict[str, str | int]:
    """Everything that the exact result of a run depends on, besides the recipe and the data."""
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return {
        "world_size": world_size,
        "device": device.type,
        "hardware": hardware,
        "threads": torch.get_num_threads(),
        "halonet": halonet.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "lightning": lightning.__version__,
        "timm": timm.__version__,
        "numpy": numpy.__version__,
    }


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Describe each value that changed, such as "threads 2 -> 1"."""
    names = dict.fromkeys([*before, *now])
    return [f"{name} {before.get(name)} -> {now.get(name)}" for name in names if before.get(name) != now.get(name)]
