import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import halonet
from halonet.classification import task as classification
from halonet.classification.module import Classifier
from halonet.engine import checkpoints
from halonet.engine.checkpoints import AtomicCheckpointIO
from halonet.engine.lock import locked
from halonet.engine.run import read_result
from halonet.errors import DivergedError, UserError, UserNote
from halonet.recipes.load import task_of
from halonet.training import list_recipes, load_checkpoint, resolve, resume, to_yaml, train
from halonet_cli.main import main
from tests.engine.tiny import make_images, tiny_recipe

LAST = "checkpoints/last.ckpt"
PREVIOUS = "checkpoints/previous.ckpt"


class Stop(lightning.Callback):
    """Raises after so many optimizer steps."""

    def __init__(self, step: int, error: BaseException):
        self.step = step
        self.error = error

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise self.error


@pytest.fixture
def stopped_run(images: Path, tmp_path: Path) -> Path:
    """A run that died after the fifth of eighteen steps."""
    with pytest.raises(ZeroDivisionError):
        train(tiny_recipe(images), tmp_path / "stopped", callbacks=[Stop(5, ZeroDivisionError())])
    return tmp_path / "stopped"


def assert_same_end(folder: Path, expected: Path) -> None:
    assert (folder / "log.jsonl").read_bytes() == (expected / "log.jsonl").read_bytes()
    checkpoint, other = (torch.load(run / LAST, weights_only=True) for run in (folder, expected))
    for state in ("state_dict", "current_model_state"):
        assert checkpoint[state].keys() == other[state].keys()
        assert all(torch.equal(tensor, other[state][name]) for name, tensor in checkpoint[state].items())


def test_a_run_folder_holds_all_that_was_promised(finished_run: Path, images: Path):
    for name in ("recipe.yaml", "log.jsonl", "timing.jsonl", LAST, "checkpoints/best.ckpt", "model.safetensors"):
        assert (finished_run / name).stat().st_size > 0
    assert not list(finished_run.rglob("*.partial"))
    with Image.open(finished_run / "curves.png") as curves:
        assert curves.width > 1000
    result = read_result(finished_run)
    assert result.keys() >= {"top1", "top5", "loss", "images_per_second", "parameters", "seconds"}
    network = Classifier.of(tiny_recipe(images)).network
    assert result["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert result["images"] == 8
    assert (result["data"], result["split"], result["epochs"], result["seed"]) == (str(images), "test", 3, 0)
    assert result["versions"]["torch"] == str(torch.__version__)
    assert result["device"] == "cpu"
    assert 0 < result["seconds"] < 600


def test_the_resolved_recipe_is_kept(finished_run: Path, images: Path):
    assert resolve(finished_run / "recipe.yaml") == tiny_recipe(images)


def test_the_best_checkpoint_is_the_first_of_the_highest_validations(finished_run: Path):
    lines = [json.loads(line) for line in (finished_run / "log.jsonl").read_text().splitlines()]
    validations = [line["validation_top1"] for line in lines if line["kind"] == "epoch"]
    best = read_result(finished_run)["best"]
    assert best == {"epoch": validations.index(max(validations)), "validation_top1": max(validations)}
    checkpoint = torch.load(finished_run / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["epoch"] == best["epoch"]


def test_the_log_has_a_line_per_step_and_per_epoch(finished_run: Path):
    lines = [json.loads(line) for line in (finished_run / "log.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == (["train"] * 6 + ["epoch"]) * 3
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 19))
    rates = [line["learning_rate"] for line in lines if line["kind"] == "train"]
    assert rates[5] == 0.1
    assert rates[-1] == 0.1 / 128
    assert not {"seconds", "images_per_second"} & {name for line in lines for name in line}
    timing = [json.loads(line) for line in (finished_run / "timing.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in timing] == [0, 1, 2]
    assert timing[0]["seconds"] < timing[2]["seconds"] < read_result(finished_run)["seconds"]


def test_an_epochs_training_metrics_are_the_means_over_its_steps(finished_run: Path):
    lines = [json.loads(line) for line in (finished_run / "log.jsonl").read_text().splitlines()]
    for first in (0, 7, 14):
        steps, epoch = lines[first : first + 6], lines[first + 6]
        assert epoch["train_loss"] == pytest.approx(sum(step["loss"] for step in steps) / 6)
        assert epoch["train_top1"] == pytest.approx(sum(step["top1"] for step in steps) / 6)


def test_a_folder_that_holds_a_run_is_refused_before_steps_are_timed(
    images: Path, finished_run: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        classification, "fill_in", lambda recipe, say: pytest.fail("the data was opened, and steps were timed")
    )
    with pytest.raises(UserError, match="already holds a run"):
        train(resolve("photos", [f"data.source={images}"]), finished_run)


def test_a_folder_that_holds_a_run_is_refused_and_untouched(finished_run: Path, stopped_run: Path, images: Path):
    for folder in (finished_run, stopped_run):
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        with pytest.raises(
            UserError, match=rf"{folder} already holds a run.*halonet train --resume {folder}.*--run-dir"
        ):
            train(tiny_recipe(images), folder)
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_stopped_run_resumes_to_the_end_of_an_unstopped_one(stopped_run: Path, finished_run: Path):
    assert resume(stopped_run) == stopped_run
    assert_same_end(stopped_run, finished_run)
    assert read_result(stopped_run)["top1"] == read_result(finished_run)["top1"]


def test_tensorboard_has_each_step_once_after_a_resume(stopped_run: Path):
    resume(stopped_run)
    events = EventAccumulator(str(stopped_run / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 19))
    assert [event.step for event in events.Scalars("epoch/validation_top1")] == [6, 12, 18]


def test_seconds_add_up_over_resumes(stopped_run: Path):
    path = stopped_run / LAST
    checkpoint = torch.load(path, weights_only=True)
    clock = checkpoint["callbacks"]["RunLog"]["clock"]
    assert clock["train_images"] == 16
    checkpoint["callbacks"]["RunLog"]["clock"] = clock | {"seconds": 1000.0}
    AtomicCheckpointIO().save_checkpoint(checkpoint, path)
    resume(stopped_run)
    assert 1000 < read_result(stopped_run)["seconds"] < 1600


def test_a_finished_run_is_left_as_it_is(finished_run: Path):
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")}
    assert resume(finished_run) == finished_run
    assert {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")} == before


def test_a_resume_names_what_has_changed(stopped_run: Path):
    recipe = (stopped_run / "recipe.yaml").read_text()
    (stopped_run / "recipe.yaml").write_text(recipe.replace("description: a test", "description: another"))
    path = stopped_run / LAST
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["environment"]["threads"] = 77
    AtomicCheckpointIO().save_checkpoint(checkpoint, path)
    with pytest.warns(UserNote, match=rf"threads 77 -> {torch.get_num_threads()}; recipe.yaml was edited"):
        resume(stopped_run)


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path: Path):
    with pytest.raises(UserError, match=rf"{tmp_path} holds no run to resume.*--run-dir {tmp_path}"):
        resume(tmp_path)


def test_a_log_that_was_cut_short_is_told(stopped_run: Path):
    (stopped_run / "log.jsonl").write_text("")
    with pytest.raises(UserError, match=r"log.jsonl has 0 bytes, but the checkpoint was written when it had \d+"):
        resume(stopped_run)


def test_ctrl_c_stops_a_run_that_can_be_resumed(images: Path, finished_run: Path, tmp_path: Path):
    with pytest.raises(
        KeyboardInterrupt, match=f"interrupted: continue with halonet train --resume {tmp_path / 'run'}"
    ):
        train(tiny_recipe(images), tmp_path / "run", callbacks=[Stop(5, KeyboardInterrupt())])
    resume(tmp_path / "run")
    assert_same_end(tmp_path / "run", finished_run)


def fill_disk(monkeypatch: pytest.MonkeyPatch, after: int) -> Callable[[], None]:
    """Let the disk be full from the given checkpoint on; returns what makes room again."""
    save, calls = torch.save, []

    def full(checkpoint: Any, file: Any) -> None:
        calls.append(file)
        if len(calls) > after:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(checkpoint, file)

    monkeypatch.setattr(checkpoints.torch, "save", full)
    return lambda: monkeypatch.setattr(checkpoints.torch, "save", save)


def test_a_full_disk_leaves_the_previous_checkpoint_and_the_run_resumes(
    images: Path, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make_room = fill_disk(monkeypatch, after=3)
    folder = tmp_path / "run"
    with pytest.raises(UserError, match=r"no space left to write .*: the previous last.ckpt is untouched") as caught:
        train(tiny_recipe(images), folder)
    assert "\n" not in str(caught.value)
    assert torch.load(folder / LAST, weights_only=True)["global_step"] == 4
    assert not list(folder.rglob("*.partial"))
    make_room()
    resume(folder)
    assert_same_end(folder, finished_run)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(255 - byte for byte in content[middle : middle + 64])
    path.write_bytes(content)


def test_a_damaged_checkpoint_is_told_and_the_one_before_it_taken(stopped_run: Path, finished_run: Path):
    damage(stopped_run / LAST)
    message = rf"{stopped_run / LAST} is damaged: .*; the run goes on from the checkpoint before it, after step 2"
    with pytest.warns(UserNote, match=message):
        resume(stopped_run, callbacks=[])
    assert_same_end(stopped_run, finished_run)


def test_a_damaged_checkpoint_never_replaces_the_sound_one_before_it(stopped_run: Path):
    damage(stopped_run / LAST)
    for number in (3, 5):
        with pytest.warns(UserNote, match="after step 2"), pytest.raises(ZeroDivisionError):
            resume(stopped_run, callbacks=[Stop(number, ZeroDivisionError())])
    for name, step in ((LAST, 4), (PREVIOUS, 2)):
        assert torch.load(stopped_run / name, weights_only=True)["global_step"] == step


def test_a_run_whose_checkpoints_are_all_damaged_says_so(stopped_run: Path):
    (stopped_run / LAST).write_bytes(b"")
    damage(stopped_run / PREVIOUS)
    message = r"last.ckpt is not a checkpoint.*\(0 bytes\); .*previous.ckpt is damaged.*; there is no other checkpoint"
    with pytest.raises(UserError, match=message):
        resume(stopped_run)
    shutil.rmtree(stopped_run / "checkpoints")
    resume(stopped_run)


def test_a_damaged_best_checkpoint_or_model_is_told_when_it_is_read(stopped_run: Path):
    resume(stopped_run)
    for name in ("checkpoints/best.ckpt", "model.safetensors"):
        damage(stopped_run / name)
        with pytest.raises(UserError, match=f"{name} is damaged"):
            load_checkpoint(stopped_run / name)


def test_the_same_run_gives_the_same_bytes_twice(images: Path, finished_run: Path, tmp_path: Path):
    train(tiny_recipe(images), tmp_path / "again")
    name = "model.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (finished_run / name).read_bytes()


def test_a_run_is_started_or_resumed_by_the_same_call(
    images: Path, stopped_run: Path, finished_run: Path, tmp_path: Path
):
    train(tiny_recipe(images), stopped_run, or_resume=True)
    assert_same_end(stopped_run, finished_run)
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")}
    assert train(tiny_recipe(images), finished_run, or_resume=True) == finished_run
    assert {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")} == before
    train(tiny_recipe(images, epochs=1), tmp_path / "new", or_resume=True)


def test_what_follows_from_the_data_is_taken_from_the_run_that_goes_on(
    images: Path, stopped_run: Path, finished_run: Path, monkeypatch: pytest.MonkeyPatch
):
    # It would choose anew, by a clock among other things.
    monkeypatch.setattr(classification, "fill_in", lambda recipe, say: recipe)
    recipe = tiny_recipe(images)
    null = dataclasses.replace(
        recipe,
        model=dataclasses.replace(recipe.model, num_classes=None),
        schedule=dataclasses.replace(recipe.schedule, epochs=None),
    )
    train(null, stopped_run, or_resume=True)
    assert_same_end(stopped_run, finished_run)


def test_a_run_of_another_recipe_is_not_resumed_by_a_call_that_may_start_one(images: Path, finished_run: Path):
    other = dataclasses.replace(tiny_recipe(images, epochs=2, seed=3), description="another text")
    message = rf"{finished_run} holds a run of another recipe \(schedule.epochs 3 -> 2; engine.seed 0 -> 3\): continue"
    with pytest.raises(UserError, match=message):
        train(other, finished_run, or_resume=True)


def test_a_folder_in_use_is_refused_with_the_process(images: Path, stopped_run: Path, tmp_path: Path):
    with locked(stopped_run), locked(tmp_path / "new"):
        for attempt in (
            lambda: resume(stopped_run),
            lambda: train(tiny_recipe(images), stopped_run, or_resume=True),
            lambda: train(tiny_recipe(images), tmp_path / "new"),
        ):
            with pytest.raises(UserError, match=f"is in use by process {os.getpid()}"):
                attempt()


def test_a_run_whose_folder_will_not_last_names_no_resume(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    stop = Stop(5, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt, match="^interrupted: run the command again$"):
        train(tiny_recipe(images), tmp_path / "stopped", advice="run the command again", callbacks=[stop])
    fill_disk(monkeypatch, after=3)
    with pytest.raises(UserError, match="no space left to write .*last.ckpt.*; make room, then run the command again$"):
        train(tiny_recipe(images), tmp_path / "full", advice="run the command again")


def test_an_absurd_loss_is_no_result(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    measure = classification.evaluate
    monkeypatch.setattr(classification, "evaluate", lambda *_, **__: measure(*_, **__) | {"loss": 9_218_755.0})
    with pytest.raises(DivergedError, match="the test loss is 9.219e.06 at the end, above 100 times"):
        train(tiny_recipe(images), tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_finished_run_whose_recipe_was_edited_is_refused(finished_run: Path, tmp_path: Path):
    shutil.copytree(finished_run, tmp_path / "run")
    recipe = tmp_path / "run" / "recipe.yaml"
    written = recipe.read_text()
    recipe.write_text(written.replace("epochs: 3", "epochs: 4"))
    for _ in range(2):  # with its result, and without
        with pytest.raises(UserError, match="holds a finished run, but its recipe.yaml was edited since: restore it"):
            resume(tmp_path / "run")
        (tmp_path / "run" / "result.json").unlink(missing_ok=True)
    older = "\n".join(line for line in written.splitlines() if "train_images" not in line)
    recipe.write_text(older.replace("reproduces: nothing", "reproduces: nothing # a remark"))
    resume(tmp_path / "run")
    assert (tmp_path / "run" / "result.json").is_file()


def test_a_run_without_a_name_needs_a_folder(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="the recipe has no name, .*: name it, or give --run-dir"):
        train(dataclasses.replace(tiny_recipe(images), name=""))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_trained_leaves_no_folder(images: Path, tmp_path: Path):
    recipe = tiny_recipe(images)
    wrong = {
        "has 2 classes, but model.num_classes is 2024: set it to 2": resolve_with(
            recipe, tmp_path, "model.num_classes=2024"
        ),
        "nowhere": resolve_with(recipe, tmp_path, "data.source=nowhere"),
        "engine section does not work here": resolve_with(recipe, tmp_path, "engine.accelerator=abacus"),
        "too few for one batch of 28": resolve_with(
            recipe, tmp_path, "optimizer.batch_size=28", "optimizer.learning_rate=0.1"
        ),
    }
    for message, bad_recipe in wrong.items():
        with pytest.raises(UserError, match=message):
            train(bad_recipe, tmp_path / "run")
        assert not (tmp_path / "run").exists()


def resolve_with(recipe, folder: Path, *overrides: str):
    (folder / "base.yaml").write_text(to_yaml(recipe))
    return resolve(folder / "base.yaml", overrides)


def test_a_training_that_diverges_says_what_to_change(images: Path, tmp_path: Path):
    recipe = resolve_with(tiny_recipe(images), tmp_path, "optimizer.learning_rate=1e30")
    with pytest.raises(UserError, match=r"loss became (nan|inf) by step \d+: the training diverged; lower"):
        train(recipe, tmp_path / "run")


def test_a_run_without_validation_or_average_is_complete(images: Path, tmp_path: Path):
    recipe = resolve_with(tiny_recipe(images, epochs=1), tmp_path, "ema.decay=0")
    recipe = resolve_with(recipe, tmp_path, "data.validation_split=null")
    recipe = resolve_with(recipe, tmp_path, "schedule.warmup_epochs=0")
    train(recipe, tmp_path / "run")
    assert read_result(tmp_path / "run")["best"] == {}
    assert not (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()


def test_a_relative_data_folder_is_found_again_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_images(tmp_path / "here" / "data")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ZeroDivisionError):
        train(tiny_recipe("data"), tmp_path / "run", callbacks=[Stop(5, ZeroDivisionError())])
    monkeypatch.chdir(tmp_path)
    resume(tmp_path / "run")


def test_a_moved_run_resumes(stopped_run: Path, finished_run: Path, tmp_path: Path):
    shutil.move(stopped_run, tmp_path / "moved")
    resume(tmp_path / "moved")
    assert_same_end(tmp_path / "moved", finished_run)


COMPLETE = [name for name in list_recipes() if task_of(name) == "classification" and not resolve(name).missing_values()]


def test_a_data_set_that_only_a_file_names_is_not_fetched(images: Path, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr("halonet.data.classification.sources._huggingface", lambda *_: pytest.fail("asked"))
    recipe = resolve_with(tiny_recipe(images), tmp_path, "data.source=hfds/owner/name")
    (tmp_path / "run").mkdir()
    for path in (tmp_path / "run" / "recipe.yaml", tmp_path / "mine.yaml"):
        path.write_text(to_yaml(recipe))
    for words in (["--resume", str(tmp_path / "run")], [str(tmp_path / "mine.yaml")]):
        assert main(["train", *words]) == 2
        assert "hfds/owner/name, which is fetched: say so with --data.source hfds/owner/name" in capsys.readouterr().err
    assert main(["train", "--resume", str(tmp_path / "run"), "--data.source", "elsewhere"]) == 2
    assert "hfds/owner/name, which is fetched" in capsys.readouterr().err


def test_a_data_set_that_the_command_line_names_is_asked_for(images: Path, tmp_path: Path, monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr("halonet.data.classification.sources._huggingface", lambda name, root: asked.append(name) or {})
    recipe = resolve_with(tiny_recipe(images), tmp_path, "data.source=hfds/owner/name")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(to_yaml(recipe))
    assert main(["train", "--resume", str(tmp_path / "run"), "--data.source", "hfds/owner/name"]) == 2
    assert set(asked) == {"owner/name"}


@pytest.mark.parametrize("name", COMPLETE)
def test_every_recipe_builds_its_network(name: str):
    with torch.device("meta"):
        network = Classifier.of(resolve(name)).network
    assert isinstance(network, halonet.HaloNet)
