"""Trainings in child processes that receive signals at chosen moments, and what these must not change."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from halonet.classification import task as classification
from halonet.engine.run import read_result
from halonet.training import ClassificationData, Classifier
from halonet_cli.main import main as halonet

PLACES: dict[str, tuple[Any, str]] = {
    "setup": (ClassificationData, "setup"),
    "micro-batch": (Classifier, "training_step"),
    "validation": (Classifier, "validation_step"),
    "writing": (torch, "save"),
    "measurement": (classification, "evaluate"),
}


def on_call(number: int, real: Callable, instead: Callable) -> Callable:
    """Replace one call of a function, counted from 1."""
    calls = 0

    def wrapper(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return instead(*arguments, **options) if calls == number else real(*arguments, **options)

    return wrapper


def in_a_child(work: Callable[[], None], name: str) -> int:
    """Work in a child process, silently; return the number of the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(f"{name}: failed")
    return os.WTERMSIG(status)


def send(signals: list[int], moment: str, to_group: bool) -> None:
    """Send signals to this process, or all processes of its group, at a moment."""
    place, _, number = moment.rpartition(" ")
    owner, name = PLACES[place]
    real = getattr(owner, name)

    def instead(*arguments: Any, **options: Any) -> Any:
        for each in signals:
            if to_group:  # from a process outside of it, as a scheduler does
                subprocess.run(["kill", f"-{each}", "--", f"-{os.getpgrp()}"], start_new_session=True, check=True)
            else:
                os.kill(os.getpid(), each)
        return real(*arguments, **options)

    setattr(owner, name, on_call(int(number), real, instead))


def command(words: list[str], errors: Path, prepare: Callable[[], object]) -> int:
    """Run a command in a child process with its own group; return its process id."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setpgrp()
            signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job ignores
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup ignores
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            prepare()
            status = halonet(words)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return child


def end(child: int, errors: Path) -> dict[str, Any]:
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"status": status, "said": errors.read_text().splitlines()}


def digest(value: Any) -> str:
    """Hash nested containers of tensors and plain values by their bits."""
    if isinstance(value, torch.Tensor):
        value = (str(value.dtype), list(value.shape), value.contiguous().view(-1).view(torch.uint8).tolist())
    elif isinstance(value, dict):
        value = {str(key): digest(item) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        value = [digest(item) for item in value]
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def traces(folder: Path) -> dict[str, Any]:
    """Everything in a finished run that must not depend on interruptions."""
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    result = read_result(folder)
    return {
        "log": (folder / "log.jsonl").read_text(),
        "raw weights": digest(checkpoint["current_model_state"]),
        "averaged weights": digest([checkpoint["state_dict"], checkpoint["averaging_state"]]),
        "optimizer": digest([checkpoint["optimizer_states"], checkpoint["lr_schedulers"]]),
        "best": digest([best["state_dict"], best["current_model_state"]]),
        "model.safetensors": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "result": {name: result[name] for name in ("top1", "top5", "loss", "best")},
    }
