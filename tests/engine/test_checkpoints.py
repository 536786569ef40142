import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from halonet.engine import checkpoints
from halonet.engine.checkpoints import AtomicCheckpointIO, BestCheckpoint, StepCheckpoint, differences, environment
from halonet.errors import UserError
from halonet.training import Classifier, OptimizerSection, ScheduleSection
from tests.engine.interrupted_runs import SCENARIOS


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The final state of each scenario, from a process that forks before it has threads."""
    program = [sys.executable, "-m", "tests.engine.interrupted_runs", str(tmp_path_factory.mktemp("interrupted"))]
    finished = subprocess.run(
        program, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name != "never"])
def test_a_killed_run_resumes_to_the_same_bits(traces: dict, scenario: str):
    assert traces[scenario] == traces["never"]


def test_the_uninterrupted_run_is_complete(traces: dict):
    records = [json.loads(line) for line in traces["never"]["log"].splitlines()]
    steps = [record["step"] for record in records if record["kind"] == "train"]
    assert steps == list(range(1, 19))
    assert [record["epoch"] for record in records if record["kind"] == "epoch"] == [0, 1, 2]
    assert traces["never"]["raw weights"] != traces["never"]["averaged weights"]


class Saves:
    """Stands in for a Trainer, and records when it had to save."""

    def __init__(self, micro_batches: int):
        self.micro_batches = micro_batches
        self.global_step = 0
        self.saved: list[int] = []

    def save_checkpoint(self, path: Path) -> None:
        self.saved.append(self.global_step)

    def run(self, callback: StepCheckpoint, epochs: int, steps_per_epoch: int) -> list[int]:
        callback.on_train_start(self, None)
        for _ in range(epochs):
            for batch_idx in range(steps_per_epoch * self.micro_batches):
                callback.on_train_batch_start(self, None, None, batch_idx)
                self.global_step += (batch_idx + 1) % self.micro_batches == 0
        return self.saved


@pytest.fixture
def untyped_callbacks(untyped: None) -> None:
    """Stand-ins do not have Lightning's types."""


@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.usefixtures("untyped_callbacks")
def test_checkpoints_are_written_when_due(micro_batches: int, tmp_path: Path):
    assert Saves(micro_batches).run(StepCheckpoint(tmp_path / "last.ckpt", 4), 3, 5) == [4, 5, 8, 10, 12]


def test_a_checkpoint_with_code_is_always_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"state_dict": {}, "code": lightning.Callback()}, tmp_path / "code.ckpt")
    with pytest.raises(UserError, match="pickled Python objects"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "code.ckpt", weights_only=False)


def test_differences_are_named():
    now = environment(1, torch.device("cpu"))
    assert {"world_size", "device", "hardware", "threads", "torch", "lightning", "python"} <= set(now)
    assert differences(now, now) == []
    assert differences(now, now | {"threads": -1, "new": 3}) == [f"threads {now['threads']} -> -1", "new None -> 3"]


def test_a_checkpoint_is_written_beside_its_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    places = []
    save = torch.save
    monkeypatch.setattr(checkpoints.torch, "save", lambda value, file: (places.append(file.name), save(value, file)))
    AtomicCheckpointIO().save_checkpoint({"number": 1}, tmp_path / "last.ckpt")
    assert Path(places[0]).parent == tmp_path
    assert AtomicCheckpointIO().load_checkpoint(tmp_path / "last.ckpt") == {"number": 1}


def test_the_best_checkpoint_is_the_first_of_equals(tmp_path: Path, untyped_callbacks: None):
    trainer = Saves(1)
    trainer.sanity_checking = False
    callback = BestCheckpoint(tmp_path / "best.ckpt")
    classifier = Classifier(
        torch.nn.Identity(), OptimizerSection(learning_rate=0.1), ScheduleSection(epochs=1, warmup_epochs=0.0)
    )
    for epoch, top1 in enumerate([50.0, 60.0, 60.0, 55.0]):
        trainer.current_epoch = trainer.global_step = epoch
        classifier.validation_metrics = {"top1": top1}
        callback.on_validation_end(trainer, classifier)
    assert trainer.saved == [0, 1]
    assert callback.best == {"epoch": 1, "validation_top1": 60.0}
