"""The packaged detection recipes against the paper's numbers, repeated here."""

from pathlib import Path

import pytest
import torch

import halonet
from halonet.detection import DetectionRecipe, Detector
from halonet.recipes.load import task_of
from halonet.training import list_recipes, resolve, to_yaml

# Table 5: backbone, box AP, mask AP.
TABLE_5 = {
    "r50": ("resnet50_twin", 42.1, 37.7),
    "r50se": ("r50se", 44.5, 39.6),
    "r50se_halo_b8": ("r50se_halo_b8", 45.2, 40.3),
    "r50se_halo_b32": ("r50se_halo_b32", 45.4, 40.5),
    "r101se": ("r101se", 45.9, 40.6),
    "r101se_halo_b8": ("r101se_halo_b8", 46.8, 41.2),
}
DETECTORS = [name for name in list_recipes() if task_of(name) == "detection"]
COMPLETE = [name for name in DETECTORS if name != "detection/photos"]  # the rest follows from the data


def read(name: str) -> DetectionRecipe:
    return resolve(f"detection/{name}")


def test_the_detection_recipes_cover_table_5():
    assert sorted(DETECTORS) == sorted(
        f"detection/{name}" for name in [*TABLE_5, "r50se_halo_b8_lsj", "nuclei", "photos"]
    )


@pytest.mark.parametrize("name", TABLE_5)
def test_table_5_follows_appendix_d4(name: str):
    recipe = read(name)
    backbone, box, mask = TABLE_5[name]
    schedule, augmentation = recipe.schedule, recipe.data.augmentation
    assert recipe.model.name == backbone
    assert f"{box} box AP, {mask} mask AP" in recipe.reproduces
    assert (schedule.steps, schedule.drops, schedule.drop_factor) == (67_500, (60_000, 65_000), 0.1)
    assert (recipe.optimizer.batch_size, recipe.optimizer.learning_rate) == (64, 0.1)
    assert (recipe.optimizer.momentum, recipe.optimizer.weight_decay) == (0.9, 4e-5)
    assert [0.1 * schedule.factor(step) for step in (0, 499)] == pytest.approx([2 / 300, 2 / 300])
    assert [schedule.factor(step) for step in (500, 59_999, 60_000, 64_999, 65_000)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01]
    )
    assert (augmentation.train_resize, augmentation.jitter_size) == ("jitter", 1024)
    assert augmentation.jitter_scale == (4 / 5, 5 / 4)
    assert (augmentation.min_size, augmentation.max_size) == (1024, 1024)


def test_jitter_recipes_change_scale_and_length_only():
    jitter, base = read("r50se_halo_b8_lsj"), read("r50se_halo_b8")
    assert jitter.data.augmentation.jitter_scale == (0.1, 2.0)
    assert jitter.model == base.model
    assert jitter.optimizer == base.optimizer
    assert jitter.schedule.steps == 4 * base.schedule.steps


@pytest.mark.parametrize("name", COMPLETE)
def test_a_recipe_builds_its_detector(name: str):
    recipe = resolve(name)
    assert isinstance(recipe, DetectionRecipe)
    with torch.device("meta"):
        network = Detector.of(recipe, initialized=True).network
    assert network.config.backbone.depths
    if recipe.model.name in halonet.HALONETS and not recipe.model.overrides:
        assert network.config.backbone == halonet.HALONETS[recipe.model.name]


@pytest.mark.parametrize("name", DETECTORS)
def test_a_recipe_reads_back_the_same(name: str, tmp_path: Path):
    recipe = resolve(name, ["optimizer.weight_decay=1.23456789e-7"])
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    assert resolve(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize("name", TABLE_5)
def test_a_recipe_starts_from_its_pre_trained_backbone(name: str):
    init = read(name).model.init
    assert init is not None
    assert init.removeprefix("runs/") in list_recipes()
    assert resolve(init.removeprefix("runs/")).model.name == TABLE_5[name][0]
