import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import halonet
from halonet.detection import DetectionData, Detector, evaluate, resume, task, train
from halonet.detection.task import Detection
from halonet.engine.run import read_result
from halonet.engine.weights import describe, read_weights, save_weights
from halonet.errors import UserError
from halonet.recipes.load import resolve, to_yaml
from tests.detection.tiny import BACKBONE, tiny_recipe


def lines(run, kind):
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == kind]


def test_a_run_leaves_its_files(finished_run: Path):
    names = {path.name for path in finished_run.iterdir()}
    assert names == {
        *("recipe.yaml", "log.jsonl", "timing.jsonl", "tensorboard", "checkpoints", "model.safetensors"),
        *("curves.png", "result.json", "detections.json", "precision_recall.png"),
    }
    result = read_result(finished_run)
    assert result["steps"] == 7
    assert result["images"] == 3
    assert set(result["per_class"]) == {"box", "disc"}
    assert result["evaluator"] == "pycocotools"
    assert "steps" in Detection.describe(result)


def test_the_log_has_losses_and_average_precision(finished_run: Path):
    assert [line["step"] for line in lines(finished_run, "train")] == [2, 4, 6]
    first = lines(finished_run, "train")[0]
    parts = ("objectness", "rpn_box_reg", "classifier", "box_reg", "mask")
    assert first["loss"] == pytest.approx(sum(first[f"loss_{part}"] for part in parts), rel=1e-5)
    epochs = lines(finished_run, "epoch")
    assert [line["step"] for line in epochs] == [3, 6, 7]
    assert {"validation_box_ap", "validation_box_ap50", "validation_mask_ap"} <= set(epochs[0])
    assert "validation_mask_ap" not in epochs[-1]  # the run ended within that epoch: nothing was validated


def test_a_run_without_masks_reports_none(box_run: Path):
    assert {path.name for path in box_run.iterdir()} >= {"curves.png", "detections.json", "precision_recall.png"}
    result = read_result(box_run)
    assert not [name for name in result if "mask" in name]
    assert "mask" not in Detection.describe(result)
    first, epoch = lines(box_run, "train")[0], lines(box_run, "epoch")[0]
    parts = ("objectness", "rpn_box_reg", "classifier", "box_reg")
    assert first["loss"] == pytest.approx(sum(first[f"loss_{part}"] for part in parts), rel=1e-5)
    assert "validation_box_ap" in epoch
    assert not [name for name in first | epoch if "mask" in name]
    assert (box_run / "checkpoints/best.ckpt").exists()


def test_training_metrics_are_means_over_the_images(scenes: Path, monkeypatch: pytest.MonkeyPatch):
    task = Detector.of(tiny_recipe(scenes)).train()
    monkeypatch.setattr(task, "log", lambda *_, **__: None)
    batches = list(DetectionData.of(tiny_recipe(scenes)).train_dataloader())
    losses = [task.training_step(batch, number).item() for number, batch in enumerate(batches)]
    assert task.local_epoch_metrics()["loss"] == pytest.approx(sum(losses) / len(losses))


def test_the_learning_rate_follows_the_schedule(finished_run: Path):
    recipe = tiny_recipe("data")
    rates = [line["learning_rate"] for line in lines(finished_run, "train")]
    assert rates == pytest.approx([0.02 * recipe.schedule.factor(step) for step in (1, 3, 5)])
    assert rates[-1] == pytest.approx(0.002)


def test_a_killed_run_resumes_to_the_same_bits(tmp_path: Path):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "tests.detection.interrupted_runs", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["twice, with a worker"]["signals"] == [9, 9, 0]
    assert found["twice, with a worker"]["traces"] == found["never"]["traces"]


def test_two_processes_train_and_measure_as_one_run(scenes: Path, tmp_path: Path):
    (tmp_path / "tiny.yaml").write_text(to_yaml(tiny_recipe(scenes, batch_size=2)))
    words = ["detect", "train", str(tmp_path / "tiny.yaml"), "--run-dir", str(tmp_path / "run")]
    # Frozen, because each process has its own batch statistics.
    words += ["--engine.devices", "2", "--engine.strategy", "ddp", "--model.batch-norm", "frozen"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, "-m", "halonet_cli", *words], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written to") == 1
    result = read_result(tmp_path / "run")
    assert (result["world_size"], result["steps"]) == (2, 7)
    # Both processes together must have found what one finds in all images.
    best = evaluate(tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert best["mask_ap"] == pytest.approx(result["best"]["validation_mask_ap"])


def test_resuming_needs_no_initial_weights(scenes: Path, tmp_path: Path):
    classifier = halonet.create_model("tiny28", num_classes=5, in_chans=3, **BACKBONE)
    init = tmp_path / "classifier.safetensors"
    save_weights(init, classifier.state_dict(), describe(classifier))
    recipe = tiny_recipe(scenes, steps=3, init=str(init))
    body = Detector.of(recipe).network.pyramid.body
    assert body.state_dict().keys() < classifier.state_dict().keys()

    import lightning

    class Stop(lightning.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "run", callbacks=[Stop()])
    init.unlink()
    resume(tmp_path / "run")
    assert read_result(tmp_path / "run")["steps"] == 3


def test_a_resumed_run_keeps_its_filled_in_values(scenes: Path, finished_run: Path, monkeypatch: pytest.MonkeyPatch):
    # Choosing again could give other values, because it depends on timing.
    monkeypatch.setattr(task, "fill_in", lambda recipe, say: recipe)
    recipe = tiny_recipe(scenes)
    null = dataclasses.replace(
        recipe,
        model=dataclasses.replace(recipe.model, num_classes=None),
        optimizer=dataclasses.replace(recipe.optimizer, batch_size=None),
    )
    assert train(null, finished_run, or_resume=True) == finished_run


def test_a_used_folder_is_refused_before_timing(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(task, "fill_in", lambda recipe, say: pytest.fail("the data was opened, and steps were timed"))
    (tmp_path / "log.jsonl").touch()
    with pytest.raises(UserError, match=r"already holds a run \(log.jsonl\).*halonet detect train --resume"):
        train(resolve("detection/photos", [f"data.source={scenes}"]), tmp_path)


def test_missing_initial_weights_are_refused_first(scenes: Path, tmp_path: Path):
    with pytest.raises(UserError, match="there is no checkpoint .*nowhere"):
        train(tiny_recipe(scenes, init=str(tmp_path / "nowhere")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_wrong_number_of_classes_is_refused(scenes: Path, tmp_path: Path):
    recipe = tiny_recipe(scenes)
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, num_classes=80))
    with pytest.raises(UserError, match="has 2 classes, but model.num_classes is 80: set it to 2"):
        train(recipe, tmp_path / "run")


def test_the_end_is_the_average_of_the_weights(finished_run: Path):
    import torch

    state, _, _ = read_weights(finished_run)
    checkpoint = torch.load(finished_run / "checkpoints" / "last.ckpt", weights_only=True)
    name = "backbone.body.stem.conv.weight"
    assert torch.equal(state[name], checkpoint["state_dict"][f"network.{name}"])
    assert not torch.equal(state[name], checkpoint["current_model_state"][f"network.{name}"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0, but must be from 1 to"),
        ({"steps": 1}, "schedule.warmup_steps is 2, but must be from 0 to schedule.steps, which is 1"),
        ({"batch_size": 0}, "batch_size is 0, but must be from 1 to"),
    ],
)
def test_values_out_of_range_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        tiny_recipe("data", **changes)


@pytest.mark.parametrize("drops", [(5, 3), (0,)])
def test_drops_must_ascend_from_one(drops):
    recipe = tiny_recipe("data")
    with pytest.raises(UserError, match="schedule.drops is .*ascending order|drops.0 is 0, but must be from 1"):
        dataclasses.replace(recipe, schedule=dataclasses.replace(recipe.schedule, drops=drops))


def test_a_linear_warm_up_rises_to_the_peak():
    schedule = dataclasses.replace(tiny_recipe("data").schedule, warmup_steps=4, warmup_fraction=0.2, drops=(6,))
    assert [schedule.factor(step) for step in range(7)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 0.1])


def test_a_finished_run_whose_initial_weights_moved_is_the_same_run(
    scenes: Path, finished_run: Path, tmp_path: Path
) -> None:
    # A link at the old place leads to the new one.
    weights = tmp_path / "moved.safetensors"
    shutil.copy(finished_run / "model.safetensors", weights)
    init = tmp_path / "weights.safetensors"
    shutil.copy(weights, init)
    train(tiny_recipe(scenes, init=str(init)), tmp_path / "run")
    init.unlink()
    init.symlink_to(weights)
    assert resume(tmp_path / "run") == tmp_path / "run"


def test_the_description_of_a_detector_begins_with_its_backbone(finished_run: Path) -> None:
    information = read_weights(finished_run)[1]
    assert next(iter(information["config"])) == "backbone"
