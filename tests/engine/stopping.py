"""Ways to stop a training."""

import errno
from collections.abc import Callable
from typing import Any

import lightning
import pytest
import torch

from halonet.engine import checkpoints


class Stop(lightning.Callback):
    """Raises an error after some optimizer steps."""

    def __init__(self, step: int, error: BaseException):
        self.step = step
        self.error = error

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise self.error


def fill_disk(monkeypatch: pytest.MonkeyPatch, after: int) -> Callable[[], None]:
    """Simulate a full disk after some checkpoints; return a function that makes room again."""
    save, calls = torch.save, []

    def full(checkpoint: Any, file: Any) -> None:
        calls.append(file)
        if len(calls) > after:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(checkpoint, file)

    monkeypatch.setattr(checkpoints.torch, "save", full)
    return lambda: monkeypatch.setattr(checkpoints.torch, "save", save)
