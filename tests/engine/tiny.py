"""A tiny training for tests: forty images of 8 x 8 pixels, and a small HaloNet."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from halonet.classification.recipe import DataSection, ModelSection, Recipe, RegularizationSection, ScheduleSection
from halonet.data import AugmentationConfig
from halonet.recipes.load import resolve, to_yaml
from halonet.recipes.schema import AnyRecipe, EmaSection, EngineSection, OptimizerSection

SPLITS = {"train": 12, "val": 4, "test": 4}  # images per class
NETWORK = {
    "depths": [1, 1],
    "width_ratio": 0.125,
    "bottleneck_ratio": 1.0,
    "num_heads": [2, 2],
    "stem": "conv3x3",
    "stem_width": 8,
    "block_size": 4,
    "halo_size": 1,
}


def make_images(folder: Path, splits: dict[str, int] = SPLITS) -> Path:
    """Write a data set of two classes: bright on the left, bright on the right."""
    generator = np.random.default_rng(0)
    for split, images_per_class in splits.items():
        for label, name in enumerate(("left", "right")):
            (folder / split / name).mkdir(parents=True)
            for number in range(images_per_class):
                pixels = generator.integers(0, 128, (8, 8), dtype=np.uint8)
                pixels[:, 4 * label : 4 * label + 4] += 100
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


def tiny_recipe(
    data: Path | str,
    *,
    workers: int = 0,
    batch_size: int = 4,
    accumulate: int = 1,
    epochs: int = 3,
    regularized: bool = True,
    **engine: Any,
) -> Recipe:
    """A recipe with everything that draws random numbers or keeps a state; `regularized=False` makes learning easy."""
    rate = 0.1 if regularized else 0.0
    return Recipe(
        name="tiny",
        description="a test",
        reproduces="nothing",
        model=ModelSection(
            name="h0", num_classes=2, in_chans=1, drop_rate=rate, drop_path_rate=2 * rate, overrides=NETWORK
        ),
        data=DataSection(
            source=str(data),
            augmentation=AugmentationConfig(
                image_size=8,
                in_chans=1,
                mean=(0.4,),
                std=(0.2,),
                crop_pct=1.0,
                train_crop="pad" if regularized else "none",
                padding=1,
                hflip=0.0,
            ),
            workers=workers,
        ),
        optimizer=OptimizerSection(learning_rate=0.1, batch_size=batch_size, accumulate=accumulate),
        schedule=ScheduleSection(epochs=epochs, warmup_epochs=1.0),
        regularization=RegularizationSection(label_smoothing=rate),
        ema=EmaSection(decay=0.9),
        engine=EngineSection(**{"accelerator": "cpu", "checkpoint_every_steps": 2, "log_every_steps": 1} | engine),
    )


def tiny_cifar10_recipe(root: Path, **data: object) -> Recipe:
    """Training on the CIFAR-10 of `tests.data.cifar10_archives`."""
    recipe = tiny_recipe("cifar10", epochs=2, batch_size=10, regularized=False)
    return dataclasses.replace(
        recipe,
        model=dataclasses.replace(recipe.model, num_classes=10),
        data=dataclasses.replace(recipe.data, root=str(root), **data),
    )


def resolve_with(recipe: Recipe, folder: Path, *overrides: str) -> AnyRecipe:
    """Change a recipe as the command line does."""
    (folder / "base.yaml").write_text(to_yaml(recipe))
    return resolve(folder / "base.yaml", overrides)
