"""The progress bar: how far the run is, its metrics, its speed and the time left."""

import math
import time
from typing import Any

import lightning
from tqdm import tqdm

from halonet.engine.module import Batch, TrainingModule, count_images

_BAR = "{desc} |{bar}| {percentage:3.0f} %{postfix}"


class Progress(lightning.Callback):
    """Shows one bar for the whole run on stderr, if that is a terminal, and prints a line per epoch on stdout.

    Args:
        interval: Seconds between updates of the bar; metrics are copied from the device only then.
    """

    def __init__(self, interval: float = 0.25):
        self.interval = interval
        self._bar: tqdm | None = None
        self._first_step = 0
        self._start = 0.0
        self._drawn = 0.0
        self._train_images = 0
        self._train_seconds = 0.0
        self._train_mark = 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Show the bar, at the position of a resumed run."""
        self._start = self._train_mark = time.monotonic()
        self._first_step = trainer.global_step
        if trainer.is_global_zero:
            total = int(trainer.estimated_stepping_batches)
            self._bar = tqdm(
                total=total, initial=trainer.global_step, bar_format=_BAR, dynamic_ncols=True, disable=None
            )

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Exclude the validation from the speed."""
        self._train_mark = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count the images, and update the bar if it is time."""
        now = time.monotonic()
        self._train_seconds += now - self._train_mark
        self._train_images += count_images(batch) * trainer.world_size
        self._train_mark = now
        if self._bar is None or self._bar.disable or now - self._drawn < self.interval:
            return
        assert isinstance(pl_module, TrainingModule)
        self._drawn = now
        metrics = pl_module.local_epoch_metrics()
        left = self._describe_time_left(trainer.global_step, self._bar.total, now)
        self._bar.n = trainer.global_step
        self._bar.set_description_str(f"epoch {trainer.current_epoch + 1}/{_epochs(trainer)}", refresh=False)
        self._bar.set_postfix_str(f"{pl_module.describe_metrics(metrics)}, {self._describe_speed()}, {left} left")

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Print the epoch's line."""
        assert isinstance(pl_module, TrainingModule)
        metrics = pl_module.epoch_metrics()
        if self._bar is None:
            return
        line = (
            f"epoch {trainer.current_epoch + 1:3d}/{_epochs(trainer)}  training {pl_module.describe_metrics(metrics)}"
        )
        if pl_module.validation_metrics:
            line += f"  validation {pl_module.describe_metrics(pl_module.validation_metrics)}"
        left = self._describe_time_left(trainer.global_step, self._bar.total, time.monotonic())
        tqdm.write(f"{line}  {self._describe_speed()}  {left} left")

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Remove the bar; the lines stay."""
        if self._bar is not None:
            self._bar.leave = False
            self._bar.close()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Remove the bar, so that the message stands on its own line."""
        self.on_train_end(trainer, pl_module)

    def _describe_speed(self) -> str:
        speed = self._train_images / max(self._train_seconds, 1e-9)
        return f"{speed:.0f} images/s" if speed >= 10 else f"{speed:.2g} images/s"

    def _describe_time_left(self, step: int, total_steps: int, now: float) -> str:
        """Estimate the time left, validation and checkpoints included."""
        per_step = (now - self._start) / max(1, step - self._first_step)
        return tqdm.format_interval(int(per_step * (total_steps - step)))


def _epochs(trainer: lightning.Trainer) -> int:
    """The number of epochs; a run that is measured in steps may end within the last one."""
    steps = trainer.num_training_batches / trainer.accumulate_grad_batches
    return math.ceil(trainer.estimated_stepping_batches / math.ceil(steps))
