import dataclasses
import json

import pytest

from halonet.detection import DetectionData, fill_in, from_data
from halonet.detection.from_data import SIDES, estimate_seconds
from halonet.engine.estimate import LONGEST
from halonet.errors import UserError
from halonet.training import resolve, to_yaml
from tests.detection.tiny import make_scenes, tiny_recipe, without_masks


@pytest.fixture(autouse=True)
def no_clock(request, monkeypatch):
    """Replace the estimate, except in tests about it."""
    if "estimate_seconds" not in request.function.__code__.co_names:
        monkeypatch.setattr(from_data, "estimate_seconds", lambda recipe: 60.0)


def photos(*overrides):
    return resolve("detection/photos", overrides)


def fill(folder, *overrides):
    said = []
    return fill_in(photos(f"data.source={folder}", *overrides), say=said.append), said


def value(recipe, key):
    for part in key.split("."):
        recipe = getattr(recipe, part)
    return recipe


def test_a_folder_of_boxes_is_enough(box_scenes):
    recipe, said = fill(box_scenes)
    assert recipe.missing_values() == []
    assert recipe.model.masks is False
    assert (recipe.model.num_classes, recipe.data.test_split) == (2, "validation")
    assert (recipe.optimizer.batch_size, recipe.optimizer.learning_rate) == (4, 0.02)
    assert (recipe.schedule.steps, recipe.schedule.warmup_steps, recipe.schedule.drops) == (400, 50, (320,))
    # Boxes of 12 pixels or more in images of 64: the smallest size is enough.
    assert recipe.data.augmentation.min_size == recipe.data.augmentation.jitter_size == SIDES[-1]
    assert "6 images to train on with 12 objects in 2 classes (box 6, disc 6); boxes and no masks" in said[0]
    assert "estimated time: 60 seconds" in said[1]
    assert "--model.masks false --model.num_classes 2" in said[2]
    assert '--schedule.drops "[320]"' in said[2]


def test_a_few_images_are_repeated_for_ten_validations(box_scenes):
    recipe, _ = fill(box_scenes)
    data = DetectionData.of(recipe)
    assert len(data.train_dataset()) // 4 == pytest.approx(40, abs=2)


def test_an_epoch_holds_a_batch_however_few_the_steps(box_scenes):
    recipe, _ = fill(box_scenes, "schedule.steps=4", "optimizer.batch_size=8")
    assert len(DetectionData.of(recipe).train_dataset()) >= 8


def test_masks_are_learned_if_every_object_has_one(scenes, tmp_path):
    assert fill(scenes)[0].model.masks is True
    assert fill(scenes, "model.masks=false")[0].model.masks is False
    folder = make_scenes(tmp_path / "coco")
    file = folder / "annotations/instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["segmentation"] = []
    file.write_text(json.dumps(content))
    with pytest.warns(match="1 without a mask"):
        recipe, said = fill(folder)
    assert recipe.model.masks is False
    assert "with 12 objects" in said[0]


def test_given_values_stay(box_scenes):
    given = ("schedule.steps=77", "optimizer.batch_size=2", "data.augmentation.min_size=300", "data.repeats=3")
    recipe, said = fill(box_scenes, *given)
    assert (recipe.schedule.steps, recipe.optimizer.batch_size, recipe.data.repeats) == (77, 2, 3)
    assert recipe.optimizer.learning_rate == 0.01
    assert (recipe.data.augmentation.min_size, recipe.data.augmentation.max_size) == (300, 300)
    assert not any(f"--{key.partition('=')[0]} " in said[-1] for key in given)
    complete = tiny_recipe(box_scenes)
    assert fill_in(complete) is complete


def test_small_objects_take_larger_images(tmp_path):
    folder = without_masks(make_scenes(tmp_path / "coco"))
    file = folder / "annotations/instances_train.json"
    content = json.loads(file.read_text())
    for annotation in content["annotations"]:
        annotation["bbox"][2:] = [2, 2]  # of 64 pixels: 16 of 512
    file.write_text(json.dumps(content))
    assert fill(folder)[0].data.augmentation.max_size == 512


def test_a_long_training_gets_smaller_images_then_fewer_steps(box_scenes, monkeypatch):
    monkeypatch.setattr(from_data, "SMALLEST_OBJECT", 1000)  # so that all sizes are tried
    monkeypatch.setattr(from_data, "estimate_seconds", lambda recipe: 4.0 * recipe.data.augmentation.max_size)
    recipe, said = fill(box_scenes)
    assert recipe.data.augmentation.max_size == 384
    assert [line for line in said if "taking something smaller" in line] == [
        f"images of {side} px would take about {4 * side / 60:.0f} minutes: taking something smaller"
        for side in (768, 640, 512)
    ]
    monkeypatch.setattr(from_data, "estimate_seconds", lambda recipe: 4.0 * LONGEST)
    recipe, said = fill(box_scenes)
    assert recipe.data.augmentation.max_size == SIDES[-1]
    assert (recipe.schedule.steps, recipe.schedule.warmup_steps, recipe.schedule.drops) == (100, 12, (80,))
    assert said[-3] == "400 steps would take about 120 minutes: taking 100"
    assert "estimated time: 30 minutes" in said[-2]


def test_given_steps_stay_however_long_they_take(box_scenes, monkeypatch):
    monkeypatch.setattr(from_data, "estimate_seconds", lambda recipe: 4.0 * LONGEST)
    recipe, said = fill(box_scenes, "schedule.steps=400")
    assert (recipe.schedule.steps, recipe.schedule.warmup_steps, recipe.schedule.drops) == (400, 50, (320,))
    assert "estimated time: 120 minutes" in said[-2]


def test_a_given_warm_up_and_drops_stay(box_scenes, monkeypatch):
    monkeypatch.setattr(from_data, "estimate_seconds", lambda recipe: 4.0 * LONGEST)
    recipe, _ = fill(box_scenes, "schedule.warmup_steps=7", "schedule.drops=[300]")
    assert (recipe.schedule.steps, recipe.schedule.warmup_steps, recipe.schedule.drops) == (100, 7, (300,))


def test_names_of_folders_and_classes_are_escaped(tmp_path):
    folder = without_masks(make_scenes(tmp_path / "\x1b[2Jcoco", {"train": 2, "val": 2}))
    for file in (folder / "annotations").iterdir():
        file.write_text(file.read_text().replace('"disc"', json.dumps("two\nlines")))
    _, said = fill(folder)
    assert r"\x1b[2Jcoco: " in said[0]
    assert r"two\nlines 2" in said[0]
    assert not any("\x1b" in line or "\n" in line for line in said)


def test_images_are_held_out_without_a_validation_split(tmp_path):
    folder = without_masks(make_scenes(tmp_path / "coco", {"train": 10}))
    recipe, said = fill(folder)
    assert "no validation split of its own, so 20 % of the images, drawn by their names, are held out" in said[0]
    assert "8 images to train on" in said[0]
    assert len(DetectionData.of(recipe).evaluation_dataset("validation")) == 2


def test_the_estimate_is_of_training_and_validation(box_scenes):
    recipe = tiny_recipe(box_scenes, masks=False)
    seconds = estimate_seconds(recipe)
    assert 0 < seconds < 600
    assert dataclasses.replace(recipe) == recipe


def test_the_filled_in_recipe_reads_back_the_same(box_scenes, tmp_path):
    recipe, _ = fill(box_scenes)
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    assert resolve(tmp_path / "recipe.yaml") == recipe


def test_values_that_are_missing_are_named():
    with pytest.raises(
        UserError, match=r"data\.source is null: name your folder of images, .* with --data\.source DIR"
    ):
        fill_in(photos())
    with pytest.raises(UserError, match=r"leaves model\.num_classes, .*schedule\.drops null: take them from the data"):
        DetectionData.of(photos("data.source=somewhere"))
