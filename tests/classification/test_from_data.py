import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from halonet.classification import from_data
from halonet.errors import UserError, UserNote
from halonet.training import ClassificationData, Recipe, fill_in, resolve
from halonet_cli.main import main
from tests.engine.tiny import tiny_recipe


def write_photographs(folder: Path, counts: dict[str, int], size: tuple[int, int] = (130, 100)) -> Path:
    generator = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize(size).save(folder / name / f"{number}.jpg")
    return folder


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    return write_photographs(tmp_path / "photographs", {"cat": 20, "dog": 20})


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Replaces the estimate: seconds by image size, 1 by default."""
    seconds: dict[int, float] = {}
    estimate = lambda recipe: seconds.get(recipe.data.augmentation.image_size, 1.0)  # noqa: E731
    monkeypatch.setattr(from_data, "estimate_seconds", estimate)
    return seconds


def filled(folder: Path, *overrides: str) -> tuple[Recipe, str]:
    lines: list[str] = []
    recipe = fill_in(resolve("photos", [f"data.source={folder}", *overrides]), say=lines.append)
    return recipe, "\n".join(lines)


def test_null_values_are_filled_in_and_printed(photographs: Path, times: dict[int, float]):
    recipe, said = filled(photographs)
    assert recipe.missing_values() == []
    assert (recipe.model.name, recipe.model.num_classes, recipe.model.in_chans) == ("mini32", 2, 3)
    assert recipe.data.augmentation.image_size == 96
    assert recipe.data.test_split == "validation"
    assert recipe.optimizer.batch_size == 8
    assert recipe.schedule.epochs == 200
    assert "34 images to train on in 2 classes (cat 17, dog 17); shorter side 100 px, read as RGB" in said
    assert "15 % of each class, drawn by the files' names and the seed 0, are held out" in said
    assert "estimated time: 1 seconds" in said
    for key in resolve("photos").missing_values():
        assert re.search(rf"--{key} \S", said)


def test_the_printed_flags_give_the_same_recipe(photographs: Path, times: dict[int, float]):
    recipe, said = filled(photographs)
    flags = said.rpartition("following from the data: ")[2].split()
    assert resolve("photos", [f"data.source={photographs}", *flags]) == recipe


def test_many_classes_are_summarized(tmp_path: Path, times: dict[int, float]):
    folder = write_photographs(tmp_path, {str(number): 3 for number in range(6)} | {"6": 4})
    assert "15 images to train on in 7 classes (2 to 3 in each)" in filled(folder)[1]


def test_names_of_folders_are_escaped(tmp_path: Path, times: dict[int, float]):
    folder = write_photographs(tmp_path / "two\nlines", {"\x1b[31mred": 4, "b": 4})
    _, said = filled(folder)
    assert r"two\nlines: " in said
    assert r"\x1b[31mred 3" in said
    assert "\x1b" not in said
    assert "two\nlines" not in said


def test_given_values_stay(photographs: Path, times: dict[int, float]):
    given = ("optimizer.batch_size=5", "schedule.epochs=7", "data.augmentation.image_size=40", "model.name=small32")
    recipe, _ = filled(photographs, *given)
    assert (recipe.optimizer.batch_size, recipe.schedule.epochs) == (5, 7)
    assert (recipe.model.name, recipe.model.overrides) == ("small32", {})
    assert recipe.data.augmentation.image_size == 40


def test_a_complete_recipe_is_left_as_it_is():
    recipe = tiny_recipe("anywhere")
    assert fill_in(recipe, say=lambda line: pytest.fail(line)) is recipe


def test_a_long_training_is_made_smaller(photographs: Path, times: dict[int, float]):
    times[96] = 31 * 60.0
    recipe, said = filled(photographs)
    assert recipe.data.augmentation.image_size == 64
    assert "mini32 at 96 px would take about 31 minutes: taking something smaller" in said


def test_the_smallest_training_gets_fewer_epochs(photographs: Path, times: dict[int, float]):
    times |= {96: 40_000.0, 64: 18_000.0}
    recipe, said = filled(photographs)
    assert recipe.model.name == "micro32"
    assert recipe.schedule.epochs == 20
    assert recipe.schedule.warmup_epochs == 1
    assert "200 epochs would take about 300 minutes: taking 20" in said
    assert "estimated time: 30 minutes" in said


def test_given_epochs_stay(photographs: Path, times: dict[int, float]):
    times |= {96: 40_000.0, 64: 18_000.0}
    recipe, said = filled(photographs, "schedule.epochs=300")
    assert recipe.schedule.epochs == 300
    assert "estimated time: 300 minutes" in said


def test_several_processes_time_nothing(photographs: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(from_data, "estimate_seconds", lambda recipe: pytest.fail("timed"))
    recipe, _ = filled(photographs, "engine.devices=2", "optimizer.accumulate=3")
    assert recipe.optimizer.batch_size % 6 == 0


@pytest.mark.parametrize(("shorter_side", "image_size"), [(20, 32), (32, 32), (50, 48), (70, 64), (99, 96), (600, 128)])
def test_images_are_not_scaled_up(tmp_path: Path, shorter_side: int, image_size: int, times: dict[int, float]):
    folder = write_photographs(tmp_path / "set", {"cat": 4, "dog": 4}, (shorter_side + 3, shorter_side))
    assert filled(folder)[0].data.augmentation.image_size == image_size


def test_data_that_has_a_test_split_is_tested_on_it(tmp_path: Path, times: dict[int, float]):
    for split in ("Train", "test"):
        write_photographs(tmp_path / split, {"cat": 4, "dog": 4})
    recipe, said = filled(tmp_path)
    assert recipe.data.test_split == "test"
    assert "splits train, validation, test" in said


def test_without_a_folder_the_flag_is_named():
    with pytest.raises(UserError, match="data.source is null: name your folder, .* with --data.source DIR"):
        fill_in(resolve("photos"))


def test_a_recipe_with_nulls_builds_nothing(photographs: Path):
    with pytest.raises(UserError, match=r"leaves model.name, .* null: .*fill_in"):
        ClassificationData.of(resolve("photos", [f"data.source={photographs}"]))


def test_all_bad_files_are_named_before_training(photographs: Path, tmp_path: Path, capsys):
    for name in ("cat/1.jpg", "dog/2.jpg"):
        (photographs / name).write_bytes(b"")
    run = tmp_path / "run"
    assert main(["train", "photos", "--data.source", str(photographs), "--run-dir", str(run)]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "2 image(s)" in shown
    assert "cat/1.jpg is empty" in shown
    assert "dog/2.jpg is empty" in shown
    assert not run.exists()


def test_the_estimate_runs_real_steps(photographs: Path):
    recipe, said = filled(photographs, "data.augmentation.image_size=32", "model.name=micro32", "schedule.epochs=2")
    assert 0 < from_data.estimate_seconds(recipe) < 300
    assert re.search(r"estimated time: \d+ (seconds|minutes)", said)


def test_two_commands_label_pictures_of_a_folder(photographs: Path, tmp_path: Path, capsys):
    run = str(tmp_path / "run")
    fast = ["--model.name", "micro32", "--data.augmentation.image-size", "32", "--schedule.epochs", "1"]
    assert main(["train", "photos", "--data.source", str(photographs), "--run-dir", run, *fast]) == 0
    shown = capsys.readouterr().out
    assert re.search(
        r"top-1 [\d.]+ % \(95 % interval [\d.]+ to [\d.]+\), loss .* on 6 images of .* \(validation\)", shown
    )
    assert resolve(Path(run) / "recipe.yaml").model.num_classes == 2
    assert main(["predict", run, str(photographs / "cat" / "0.jpg"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["label"] in ("cat", "dog")
    assert main(["evaluate", run, "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert {name: measured[name] for name in ("images", "top1", "loss")} == {
        name: result[name] for name in ("images", "top1", "loss")
    }
    assert main(["evaluate", run, "--data", str(photographs), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 6


def test_other_data_without_splits_is_measured_whole(finished_run: Path, images: Path, tmp_path: Path, capsys):
    assert main(["evaluate", str(finished_run), "--data", str(images / "train"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 24


def test_all_conflicts_are_reported_at_once(photographs: Path, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--data.source", str(photographs)]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    for complaint in (
        "data.test_split takes the split 'test', but the data has train, validation, all",
        "it has 2 classes, but model.num_classes is 10",
        "36 training images, too few for one batch of 64",
        f"halonet train photos --data.source {photographs}",
    ):
        assert complaint in shown
    assert not (tmp_path / "runs").exists()


def test_color_converted_to_gray_is_noted(photographs: Path):
    recipe = tiny_recipe(photographs, batch_size=4)
    data = dataclasses.replace(recipe.data, test_split="validation")
    with pytest.warns(UserNote, match="has images in color, which become gray because data.augmentation.in_chans is 1"):
        ClassificationData.of(dataclasses.replace(recipe, data=data)).setup("fit")
