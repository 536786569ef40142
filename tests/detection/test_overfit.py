import dataclasses
import json
from pathlib import Path

import pytest

from halonet.detection import train
from tests.detection.tiny import tiny_augmentation, tiny_recipe


@pytest.mark.slow
def test_a_detector_overfits_a_few_images(scenes: Path, tmp_path: Path):
    recipe = tiny_recipe(scenes, steps=300)
    recipe = dataclasses.replace(
        recipe,
        model=dataclasses.replace(recipe.model, pyramid_channels=32, box_channels=64, mask_channels=32),
        data=dataclasses.replace(
            recipe.data,
            augmentation=tiny_augmentation(train_min_sizes=(48,), hflip=0.0),
            repeats=100,
            test_split="train",
        ),
        schedule=dataclasses.replace(recipe.schedule, warmup_steps=20, drops=(240,)),
    )
    result = json.loads((train(recipe, tmp_path / "run") / "result.json").read_text())
    assert result["images"] == 6
    assert result["box_ap50"] > 90
    assert result["mask_ap50"] > 90
