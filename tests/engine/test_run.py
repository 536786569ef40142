import dataclasses
import errno
import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.summary.writer.record_writer import RecordWriter

import halonet
from halonet.classification import task as classification
from halonet.classification.module import Classifier
from halonet.engine.lock import locked
from halonet.engine.run import read_result
from halonet.errors import DivergedError, UserError
from halonet.recipes.load import task_of
from halonet.training import list_recipes, resolve, resume, train
from tests.engine.stopping import Stop, fill_disk
from tests.engine.tiny import make_images, resolve_with, tiny_recipe

LAST = "checkpoints/last.ckpt"


def test_a_run_folder_is_complete(finished_run: Path, images: Path):
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


def test_a_damaged_result_is_named(tmp_path):
    (tmp_path / "result.json").write_text('{"top1":')
    with pytest.raises(UserError, match=r"result.json is not a JSON file"):
        read_result(tmp_path)


def test_the_resolved_recipe_is_kept(finished_run: Path, images: Path):
    assert resolve(finished_run / "recipe.yaml") == tiny_recipe(images)


def test_the_best_checkpoint_has_the_best_validation(finished_run: Path):
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


def test_epoch_metrics_are_means_over_steps(finished_run: Path):
    lines = [json.loads(line) for line in (finished_run / "log.jsonl").read_text().splitlines()]
    for first in (0, 7, 14):
        steps, epoch = lines[first : first + 6], lines[first + 6]
        assert epoch["train_loss"] == pytest.approx(sum(step["loss"] for step in steps) / 6)
        assert epoch["train_top1"] == pytest.approx(sum(step["top1"] for step in steps) / 6)


def test_a_used_folder_is_refused_before_timing(images: Path, finished_run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        classification, "fill_in", lambda recipe, say: pytest.fail("the data was opened, and steps were timed")
    )
    with pytest.raises(UserError, match="already holds a run"):
        train(resolve("photos", [f"data.source={images}"]), finished_run)


def test_a_used_folder_is_refused_and_unchanged(finished_run: Path, stopped_run: Path, images: Path):
    for folder in (finished_run, stopped_run):
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        with pytest.raises(
            UserError, match=rf"{folder} already holds a run.*halonet train --resume {folder}.*--run-dir"
        ):
            train(tiny_recipe(images), folder)
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_the_same_run_gives_the_same_bytes_twice(images: Path, finished_run: Path, tmp_path: Path):
    train(tiny_recipe(images), tmp_path / "again")
    name = "model.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (finished_run / name).read_bytes()


def test_a_folder_in_use_is_refused_with_the_process(images: Path, stopped_run: Path, tmp_path: Path):
    with locked(stopped_run), locked(tmp_path / "new"):
        for attempt in (
            lambda: resume(stopped_run),
            lambda: train(tiny_recipe(images), stopped_run, or_resume=True),
            lambda: train(tiny_recipe(images), tmp_path / "new"),
        ):
            with pytest.raises(UserError, match=f"is in use by process {os.getpid()}"):
                attempt()


def test_a_temporary_run_gives_its_own_advice(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stop = Stop(5, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt, match="^interrupted: run the command again$"):
        train(tiny_recipe(images), tmp_path / "stopped", advice="run the command again", callbacks=[stop])
    fill_disk(monkeypatch, after=3)
    with pytest.raises(UserError, match="no space left to write .*last.ckpt.*; make room, then run the command again$"):
        train(tiny_recipe(images), tmp_path / "full", advice="run the command again")


def test_a_huge_loss_is_not_a_result(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    measure = classification.evaluate
    monkeypatch.setattr(classification, "evaluate", lambda *_, **__: measure(*_, **__) | {"loss": 9_218_755.0})
    with pytest.raises(DivergedError, match="the test loss is 9.219e.06 at the end, above 100 times"):
        train(tiny_recipe(images), tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_run_without_a_name_needs_a_folder(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="the recipe has no name, .*: name it, or give --run-dir"):
        train(dataclasses.replace(tiny_recipe(images), name=""))
    assert list(tmp_path.iterdir()) == []


def test_an_impossible_training_leaves_no_folder(images: Path, tmp_path: Path):
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


def test_a_diverging_training_is_explained(images: Path, tmp_path: Path):
    recipe = resolve_with(tiny_recipe(images), tmp_path, "optimizer.learning_rate=1e30")
    with pytest.raises(UserError, match=r"loss became (nan|inf) by step \d+: the training diverged; lower"):
        train(recipe, tmp_path / "run")


def test_validation_and_average_are_optional(images: Path, tmp_path: Path):
    recipe = resolve_with(tiny_recipe(images, epochs=1), tmp_path, "ema.decay=0")
    recipe = resolve_with(recipe, tmp_path, "data.validation_split=null")
    recipe = resolve_with(recipe, tmp_path, "schedule.warmup_epochs=0")
    train(recipe, tmp_path / "run")
    assert read_result(tmp_path / "run")["best"] == {}
    assert not (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()


def test_a_relative_data_folder_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_images(tmp_path / "here" / "data")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ZeroDivisionError):
        train(tiny_recipe("data"), tmp_path / "run", callbacks=[Stop(5, ZeroDivisionError())])
    monkeypatch.chdir(tmp_path)
    resume(tmp_path / "run")


COMPLETE = [name for name in list_recipes() if task_of(name) == "classification" and not resolve(name).missing_values()]


@pytest.mark.parametrize("name", COMPLETE)
def test_every_recipe_builds_its_network(name: str):
    with torch.device("meta"):
        network = Classifier.of(resolve(name)).network
    assert isinstance(network, halonet.HaloNet)


def test_a_disk_that_fills_in_a_thread_is_reported_once(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    write, written = RecordWriter.write, []

    def fail_later(self: RecordWriter, data: bytes) -> None:
        written.append(data)
        if len(written) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, data)

    monkeypatch.setattr(RecordWriter, "write", fail_later)
    with pytest.raises(UserError, match="no space left to write .*tensorboard: make room, then "):
        train(tiny_recipe(images, epochs=1), tmp_path / "run")
    assert "Traceback" not in capsys.readouterr().err
