import re
from dataclasses import replace

import pytest
import torch

from halonet.training import to_yaml
from halonet_cli.main import main
from tests.detection.tiny import tiny_recipe as tiny_detection_recipe
from tests.engine.tiny import make_images, tiny_recipe


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(to_yaml(tiny_recipe(make_images(tmp_path / "images"), epochs=1)))
    return path


def test_training_and_resuming_print_what_the_run_gave(recipe, tmp_path, capsys):
    assert main(["train", str(recipe), "--run-dir", str(tmp_path / "run")]) == 0
    trained = capsys.readouterr().out.splitlines()[-2:]
    assert re.match(
        r"top-1 [\d.]+ % \(95 % interval [\d.]+ to [\d.]+\), loss .* on 8 images of .* after 1 epochs", trained[0]
    )
    assert "model.safetensors" in trained[1]
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.splitlines() == trained


def test_a_note_is_one_line_and_no_mistake(recipe, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", str(recipe), "--run-dir", str(run)]) == 0
    (run / "result.json").unlink()
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    torch.save(checkpoint | {"finished": False}, run / "checkpoints" / "last.ckpt")
    (run / "recipe.yaml").write_text((run / "recipe.yaml").read_text().replace("a test", "another test"))
    capsys.readouterr()
    assert main(["train", "--resume", str(run)]) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("halonet")]
    assert len(notes) == 1
    assert re.fullmatch("halonet: note: the resumed run will not end .*: recipe.yaml was edited", notes[0])


def test_a_mistake_found_by_a_loading_process_is_one_line_too(recipe, tmp_path, capsys):
    broken = tmp_path / "images" / "train" / "left" / "0.png"
    broken.write_bytes(broken.read_bytes()[:60])
    assert main(["train", str(recipe), "--run-dir", str(tmp_path / "run"), "--data.workers", "1"]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert shown.splitlines()[-1].startswith("halonet: ")
    assert str(broken) in shown.splitlines()[-1]


def test_a_run_is_started_or_resumed_by_one_command_line(recipe, tmp_path, capsys):
    words = ["train", str(recipe), "--run-dir", str(tmp_path / "run"), "--resume-or-start"]
    assert main(words) == 0
    first = capsys.readouterr().out.splitlines()[-2:]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == first
    assert main([*words, "schedule.epochs=2"]) == 2
    assert "holds a run of another recipe (schedule.epochs 1 -> 2)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "task", "command"),
    [(["train"], "detection", "halonet detect train"), (["detect", "train"], "classification", "halonet train")],
)
def test_a_run_of_another_task_is_not_resumed(words, task, command, images, tmp_path, capsys):
    recipe = tiny_recipe(images) if task == "classification" else tiny_detection_recipe(images)
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    assert main([*words, "--resume", str(tmp_path)]) == 2
    assert f"is a recipe for {task}: train it with {command}\n" in capsys.readouterr().err


def test_a_run_that_is_continued_downloads_no_data_that_only_its_folder_names(images, tmp_path, capsys):
    recipe = tiny_recipe(images)
    held = replace(recipe, data=replace(recipe.data, source="hfds/someone/something"))
    mine = replace(recipe, data=replace(recipe.data, source=None))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(to_yaml(held), encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(to_yaml(mine), encoding="utf-8")
    words = ["train", str(tmp_path / "mine.yaml"), "--run-dir", str(tmp_path / "run"), "--resume-or-start"]
    assert main(words) == 2
    refusal = "names the data set hfds/someone/something, which would be downloaded: allow it with --data"
    assert refusal in capsys.readouterr().err
