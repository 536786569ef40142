import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from halonet.classification import task as classification
from halonet.engine.checkpoints import AtomicCheckpointIO
from halonet.engine.run import read_result
from halonet.errors import UserError, UserNote
from halonet.training import load_checkpoint, resume, to_yaml, train
from halonet_cli.main import main
from tests.engine.stopping import Stop, fill_disk
from tests.engine.tiny import resolve_with, tiny_recipe

LAST = "checkpoints/last.ckpt"
PREVIOUS = "checkpoints/previous.ckpt"


def assert_same_end(folder: Path, expected: Path) -> None:
    assert (folder / "log.jsonl").read_bytes() == (expected / "log.jsonl").read_bytes()
    checkpoint, other = (torch.load(run / LAST, weights_only=True) for run in (folder, expected))
    for state in ("state_dict", "current_model_state"):
        assert checkpoint[state].keys() == other[state].keys()
        assert all(torch.equal(tensor, other[state][name]) for name, tensor in checkpoint[state].items())


def test_a_stopped_run_resumes_to_the_same_end(stopped_run: Path, finished_run: Path):
    assert resume(stopped_run) == stopped_run
    assert_same_end(stopped_run, finished_run)
    assert read_result(stopped_run)["top1"] == read_result(finished_run)["top1"]


def test_tensorboard_has_each_step_once(stopped_run: Path):
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


def test_a_finished_run_stays_unchanged(finished_run: Path):
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


def test_a_truncated_log_is_refused(stopped_run: Path):
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


def test_a_run_resumes_after_a_full_disk(
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


def test_a_damaged_last_checkpoint_falls_back_to_the_previous(stopped_run: Path, finished_run: Path):
    damage(stopped_run / LAST)
    message = rf"{stopped_run / LAST} is damaged: .*; the run goes on from the checkpoint before it, after step 2"
    with pytest.warns(UserNote, match=message):
        resume(stopped_run, callbacks=[])
    assert_same_end(stopped_run, finished_run)


def test_a_damaged_checkpoint_never_becomes_the_previous(stopped_run: Path):
    damage(stopped_run / LAST)
    for number in (3, 5):
        with pytest.warns(UserNote, match="after step 2"), pytest.raises(ZeroDivisionError):
            resume(stopped_run, callbacks=[Stop(number, ZeroDivisionError())])
    for name, step in ((LAST, 4), (PREVIOUS, 2)):
        assert torch.load(stopped_run / name, weights_only=True)["global_step"] == step


def test_a_run_with_only_damaged_checkpoints_is_refused(stopped_run: Path):
    (stopped_run / LAST).write_bytes(b"")
    damage(stopped_run / PREVIOUS)
    message = r"last.ckpt is not a checkpoint.*\(0 bytes\); .*previous.ckpt is damaged.*; there is no other checkpoint"
    with pytest.raises(UserError, match=message):
        resume(stopped_run)
    shutil.rmtree(stopped_run / "checkpoints")
    resume(stopped_run)


def test_damaged_weights_are_reported_when_read(stopped_run: Path):
    resume(stopped_run)
    for name in ("checkpoints/best.ckpt", "model.safetensors"):
        damage(stopped_run / name)
        with pytest.raises(UserError, match=f"{name} is damaged"):
            load_checkpoint(stopped_run / name)


def test_one_call_starts_or_resumes_a_run(images: Path, stopped_run: Path, finished_run: Path, tmp_path: Path):
    train(tiny_recipe(images), stopped_run, or_resume=True)
    assert_same_end(stopped_run, finished_run)
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")}
    assert train(tiny_recipe(images), finished_run, or_resume=True) == finished_run
    assert {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")} == before
    train(tiny_recipe(images, epochs=1), tmp_path / "new", or_resume=True)


def test_a_resumed_run_keeps_its_filled_in_values(
    images: Path, stopped_run: Path, finished_run: Path, monkeypatch: pytest.MonkeyPatch
):
    # Choosing again could give other values, because it depends on timing.
    monkeypatch.setattr(classification, "fill_in", lambda recipe, say: recipe)
    recipe = tiny_recipe(images)
    null = dataclasses.replace(
        recipe,
        model=dataclasses.replace(recipe.model, num_classes=None),
        schedule=dataclasses.replace(recipe.schedule, epochs=None),
    )
    train(null, stopped_run, or_resume=True)
    assert_same_end(stopped_run, finished_run)


def test_a_run_of_another_recipe_is_not_resumed(images: Path, finished_run: Path):
    other = dataclasses.replace(tiny_recipe(images, epochs=2, seed=3), description="another text")
    message = rf"{finished_run} holds a run of another recipe \(schedule.epochs 3 -> 2; engine.seed 0 -> 3\): continue"
    with pytest.raises(UserError, match=message):
        train(other, finished_run, or_resume=True)


def test_a_finished_run_with_an_edited_recipe_is_refused(finished_run: Path, tmp_path: Path):
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


def test_a_moved_run_resumes(stopped_run: Path, finished_run: Path, tmp_path: Path):
    shutil.move(stopped_run, tmp_path / "moved")
    resume(tmp_path / "moved")
    assert_same_end(tmp_path / "moved", finished_run)


def test_a_data_set_named_only_by_a_file_is_not_downloaded(images: Path, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr("halonet.data.classification.sources._huggingface", lambda *_: pytest.fail("asked"))
    recipe = resolve_with(tiny_recipe(images), tmp_path, "data.source=hfds/owner/name")
    (tmp_path / "run").mkdir()
    for path in (tmp_path / "run" / "recipe.yaml", tmp_path / "mine.yaml"):
        path.write_text(to_yaml(recipe))
    for words in (["--resume", str(tmp_path / "run")], [str(tmp_path / "mine.yaml")]):
        assert main(["train", *words]) == 2
        refusal = "hfds/owner/name, which would be downloaded: allow it with --data.source hfds/owner/name"
        assert refusal in capsys.readouterr().err
    assert main(["train", "--resume", str(tmp_path / "run"), "--data.source", "elsewhere"]) == 2
    assert "hfds/owner/name, which would be downloaded" in capsys.readouterr().err


def test_a_data_set_named_by_the_user_is_downloaded(images: Path, tmp_path: Path, monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr("halonet.data.classification.sources._huggingface", lambda name, root: asked.append(name) or {})
    recipe = resolve_with(tiny_recipe(images), tmp_path, "data.source=hfds/owner/name")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(to_yaml(recipe))
    assert main(["train", "--resume", str(tmp_path / "run"), "--data.source", "hfds/owner/name"]) == 2
    assert set(asked) == {"owner/name"}
