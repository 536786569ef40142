"""Checkpoints from which a killed run continues to the same bits, and the record of what that promise rests on."""

import os
import platform
import signal
import time
import warnings
from pathlib import Path
from typing import Any

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
# A run that was told to end says that it waits for a validation, if it must wait for so long.
_PATIENCE = 5.0


def find_checkpoint(folder: Path) -> tuple[Path | None, dict[str, Any], str]:
    """Read the latest sound checkpoint that a run can be resumed from.

    Args:
        folder: Of the checkpoints.

    Returns:
        The file and its content, or None and nothing if there is none; and what to tell the user of a damaged one.

    Raises:
        UserError: All there are are damaged, or one cannot be read for another reason.
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
        return path, checkpoint, note
    if damage:
        raise UserError(
            f"{'; '.join(damage)}; there is no other checkpoint: restore one, or remove {folder} to resume from the "
            "first step"
        )
    return None, {}, ""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames, with a checksum; reads tensors and plain values only, never code.

    Lightning's own stages in the temporary directory, where the last step may cross file systems and be a copy.

    Args:
        damaged: A checkpoint to be replaced without keeping it. What `last.ckpt` replaces is otherwise kept as
            `previous.ckpt`.
    """

    def __init__(self, damaged: Path | None = None):
        super().__init__()
        self._damaged = damaged

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        """Replace a checkpoint in one step.

        Args:
            checkpoint: What to save.
            path: Where.
            storage_options: None; there are none.

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
        """Read a checkpoint.

        Args:
            path: From where.
            map_location: As in `torch.load`.
            weights_only: Taken as True whatever it is.

        Returns:
            What was saved.

        Raises:
            UserError: The file is missing, damaged, no checkpoint, or holds code.
        """
        return read_checkpoint(Path(path), map_location)


class StepCheckpoint(lightning.Callback):
    """Writes the checkpoint to resume from, only ever between one optimizer step and the next.

    At the start of a training batch all that belongs to the previous step is over: its logging, its EMA, the
    validation of its epoch. Within an accumulated step nothing is saved, because gradients are in no checkpoint.

    Args:
        path: The one file, replaced each time.
        every_steps: Optimizer steps from one to the next; one more is written as each epoch begins.
        recipe: The run's resolved recipe as YAML, kept in the checkpoint.
        interrupts: Whose signals are put off from here to the end of the optimizer step in progress, when all
            processes save, and raise `Interrupted`; None leaves signals alone.
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
        """Do not save again what has just been loaded; put signals off."""
        self._latest_step = trainer.global_step
        if self._interrupts is not None:
            self._interrupts.postponed = True
            # Lightning's handler of SIGTERM would end the run without saving, and wait within it for other processes.
            self._interrupts.install()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Save if a new step is due."""
        is_new = trainer.global_step != self._latest_step
        is_due = is_new and (batch_idx == 0 or trainer.global_step % self.every_steps == 0)
        self._latest_step = trainer.global_step
        if is_due:
            trainer.save_checkpoint(self.path)
        if self._interrupts is not None and (is_new or self._is_first_batch):
            self._is_first_batch = False
            # All processes must come to the same answer, whichever of them the signal reached.
            if trainer.strategy.reduce_boolean_decision(self._interrupts.number is not None, all=False):
                if is_new and not is_due:
                    trainer.save_checkpoint(self.path)
                number = self._interrupts.number or signal.SIGTERM
                step = trainer.global_step
                place = f"after step {step}, which is saved" if step else "before the first step"
                raise Interrupted(f"stopped by {name_of(number)} {place}", number)

    def on_validation_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Say why a run that was told to end does not end yet."""
        interrupts = self._interrupts
        if interrupts is None or interrupts.number is None or self._has_explained:
            return
        if time.monotonic() - interrupts.since > _PATIENCE:
            self._has_explained = True
            note = f"{name_of(interrupts.number)}: the run ends after this validation; Ctrl-C twice ends it at once"
            warnings.warn(UserNote(note), stacklevel=2)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save the end. This callback stands before EMA's, which overwrites the raw weights here."""
        self._finished = True
        trainer.save_checkpoint(self.path)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what a later process must compare itself with."""
        checkpoint["environment"] = environment(trainer.world_size, pl_module.device)
        checkpoint["recipe"] = self.recipe
        checkpoint["finished"] = self._finished


class BestCheckpoint(lightning.Callback):
    """Keeps the checkpoint whose validation was best (of equals the first): for choosing, not for resuming.

    Args:
        path: The one file, replaced each time.
    """

    def __init__(self, path: Path):
        self.path = path
        self.best: dict[str, float] = {}

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save if this validation beat all before."""
        assert isinstance(pl_module, TrainingModule)
        name, score = f"validation_{pl_module.score}", pl_module.validation_metrics[pl_module.score]
        if not trainer.sanity_checking and score > self.best.get(name, -1.0):
            self.best = {"epoch": trainer.current_epoch, name: score}
            trainer.save_checkpoint(self.path)

    def state_dict(self) -> dict[str, Any]:
        """What was best so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember what was best so far."""
        self.best = state_dict["best"]


def environment(world_size: int, device: torch.device) -> dict[str, str | int]:
    """All but the recipe and the data that the bits of a run depend on.

    Args:
        world_size: Number of processes.
        device: That this process trains on.

    Returns:
        Names and plain values.
    """
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
    """Name what is not as it was.

    Args:
        before: Values by name.
        now: Values by name.

    Returns:
        One phrase per difference, such as "threads 2 -> 1".
    """
    names = dict.fromkeys([*before, *now])
    return [f"{name} {before.get(name)} -> {now.get(name)}" for name in names if before.get(name) != now.get(name)]
