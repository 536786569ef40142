"""The log of a run: JSON lines, which a resumed run cuts back to its checkpoint, and TensorBoard's files."""

import json
import os
import time
from pathlib import Path
from typing import Any

import lightning
from torch.utils.tensorboard import SummaryWriter

from halonet.engine.divergence import Divergence
from halonet.engine.files import explain_full_disk
from halonet.engine.module import Batch, TrainingModule, count_images
from halonet.errors import UserError


class JsonLines:
    """A file with one JSON object per line that can be cut back to an earlier size.

    Args:
        path: The file; made if it does not exist.
    """

    def __init__(self, path: Path):
        self.path = path

    def append(self, record: dict[str, Any]) -> None:
        """Append a line.

        Raises:
            UserError: The disk is full.
        """
        line = json.dumps(record, allow_nan=False) + "\n"
        with explain_full_disk(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(line)

    def offset(self) -> int:
        """Return the file's size in bytes, after writing all of it to the disk."""
        with explain_full_disk(self.path), self.path.open("ab") as file:
            os.fsync(file.fileno())
            return file.tell()

    def cut(self, offset: int) -> None:
        """Remove what was appended since `offset()` returned this offset.

        Raises:
            UserError: The file is shorter than that.
        """
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < offset:
            raise UserError(
                f"{self.path} has {size} bytes, but the checkpoint was written when it had {offset}: "
                "it was changed or lost; restore it, or start anew in another run folder"
            )
        with self.path.open("ab") as file:
            file.truncate(offset)


class RunLog(lightning.Callback):
    """Writes `log.jsonl`, `timing.jsonl` and TensorBoard's files.

    A run that was killed and resumed leaves the same `log.jsonl`, byte for byte, as an uninterrupted one; everything
    that depends on the clock goes to `timing.jsonl`. Lines of kind `train` have the training metrics since the previous
    such line, lines of kind `epoch` those of the whole epoch and of its validation. `step` counts completed optimizer
    steps.

    Args:
        folder: The run folder.
        every_steps: Optimizer steps between `train` lines.
        divergence: Judges the losses.
    """

    def __init__(self, folder: Path, every_steps: int, divergence: Divergence | None = None):
        self.folder = folder
        self.every_steps = every_steps
        self.divergence = Divergence() if divergence is None else divergence
        self.metrics = JsonLines(folder / "log.jsonl")
        self.timing = JsonLines(folder / "timing.jsonl")
        self.clock = {"seconds": 0.0, "train_seconds": 0.0, "train_images": 0}
        self._offsets = {"metrics": 0, "timing": 0}
        self._writer: SummaryWriter | None = None
        self._latest_step = 0
        self._learning_rate = 0.0
        self._mark = time.monotonic()  # when `seconds` was updated
        self._train_mark = 0.0  # when `train_seconds` was updated

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Cut the files back to the checkpoint, or empty them."""
        self._latest_step = trainer.global_step
        self._train_mark = time.monotonic()
        if trainer.is_global_zero:
            self.metrics.cut(self._offsets["metrics"])
            self.timing.cut(self._offsets["timing"])
            with explain_full_disk(self.folder / "tensorboard"):
                self._writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=trainer.global_step + 1)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Exclude the validation from the training time."""
        self._train_mark = time.monotonic()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Record the learning rate of this batch."""
        self._learning_rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count the images, and write a line if one is due."""
        assert isinstance(pl_module, TrainingModule)
        now = time.monotonic()
        self.clock["train_seconds"] += now - self._train_mark
        self.clock["train_images"] += count_images(batch) * trainer.world_size
        self._train_mark = now
        step = trainer.global_step
        if step != self._latest_step and step % self.every_steps == 0:
            metrics = {"learning_rate": self._learning_rate} | pl_module.take_interval()
            self._write(trainer, "train", step, metrics)
        self._latest_step = step

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the epoch's lines."""
        assert isinstance(pl_module, TrainingModule)
        record = {f"train_{name}": value for name, value in pl_module.epoch_metrics().items()}
        record |= {f"validation_{name}": value for name, value in pl_module.validation_metrics.items()}
        self._write(trainer, "epoch", trainer.global_step, record)
        if trainer.is_global_zero:
            seconds = self._advance_clock()
            speed = self.images_per_second
            self.timing.append({"epoch": trainer.current_epoch, "seconds": seconds, "images_per_second": speed})

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Close TensorBoard's file."""
        self._close()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Close TensorBoard's file."""
        self._close()

    @property
    def images_per_second(self) -> float:
        """Training images per second of training, including loading but not validation."""
        return self.clock["train_images"] / max(self.clock["train_seconds"], 1e-9)

    def state_dict(self) -> dict[str, Any]:
        """Return the sizes of the files, the clock, and the step since which the loss has been too high."""
        if self._writer is not None:
            self._offsets = {"metrics": self.metrics.offset(), "timing": self.timing.offset()}
        self._advance_clock()
        return {"offsets": self._offsets, "clock": dict(self.clock), "high_since": self.divergence.high_since}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the sizes to cut the files to, and the clock."""
        self._offsets = state_dict["offsets"]
        self.clock = dict(state_dict["clock"])
        self.divergence.high_since = state_dict.get("high_since")

    def _advance_clock(self) -> float:
        now = time.monotonic()
        self.clock["seconds"] += now - self._mark
        self._mark = now
        return self.clock["seconds"]

    def _close(self) -> None:
        if self._writer is not None:
            with explain_full_disk(self.folder / "tensorboard"):
                self._writer.flush()  # raises what its thread could not write; close() alone would not
                self._writer.close()

    def _write(self, trainer: lightning.Trainer, kind: str, step: int, metrics: dict[str, float]) -> None:
        self.divergence.judge(kind, step, metrics)
        if self._writer is None:
            return
        self.metrics.append({"kind": kind, "epoch": trainer.current_epoch, "step": step} | metrics)
        with explain_full_disk(self.folder / "tensorboard"):
            for name, value in metrics.items():
                self._writer.add_scalar(f"{kind}/{name}", value, step)
