"""Fills in what a recipe leaves null from the data, so that everything else sees a complete recipe."""

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from halonet.classification.data import ClassificationData, require_classes
from halonet.classification.module import Classifier
from halonet.classification.recipe import Recipe
from halonet.console import printable
from halonet.data.classification.image_source import labels_of
from halonet.data.classification.sources import available_splits, load_source
from halonet.data.classification.survey import survey
from halonet.engine.device import choose_device
from halonet.engine.estimate import choose_by_time, describe_counts, median_seconds
from halonet.errors import UserError
from halonet.recipes.schema import replaced, value_of

# On 5,000 photographs of 32 px, 100 epochs in batches of 128 at this rate reached 68.7 % in ten minutes.
IMAGES_SEEN = 500_000
RATE_OF_128 = 0.15
STEPS_AN_EPOCH = 20
MOST_IMAGES = 32
EPOCH_SECONDS = 0.3  # for a checkpoint, a line of the log and the start of the validation


class Choice(NamedTuple):
    """A network and its image size.

    Attributes:
        image_size: Side in pixels.
        name: A row of `halonet.HALONETS`.
        overrides: Changes to its config.
    """

    image_size: int
    name: str
    overrides: dict[str, Any]


# From the slowest to the fastest. With a stem of stride 4, large photographs take no longer than small ones.
STRIDE_4 = {"stem": "conv7x7"}
FOR_PHOTOGRAPHS = (
    Choice(128, "mini32", STRIDE_4),
    Choice(96, "mini32", STRIDE_4),
    Choice(64, "mini32", STRIDE_4),
    Choice(64, "micro32", STRIDE_4),
)
FOR_SMALL_IMAGES = (
    Choice(64, "mini32", {}),
    Choice(48, "mini32", {}),
    Choice(32, "mini32", {}),
    Choice(32, "micro32", {}),
)


def fill_in(recipe: Recipe, *, say: Callable[[str], None] = print) -> Recipe:
    """Fill in what a recipe leaves null from its data.

    The network and image size are the largest of a list that train within half an hour, as estimated from a few steps;
    with several processes nothing is timed. Values that are not null stay.

    Args:
        recipe: With `data.source`.
        say: Called with each line about what was found and chosen.

    Returns:
        The complete recipe; the same object if nothing was null.

    Raises:
        UserError: `data.source` is null, or the data cannot be read.
    """
    if recipe.data.source is None:
        raise UserError(
            f"recipe {recipe.name}: data.source is null: name your folder, which holds a folder of images for each "
            "class, with --data.source DIR"
        )
    missing = recipe.missing_values()
    if not missing:
        return recipe
    data = recipe.data
    root = None if data.root is None else Path(data.root)
    splits = available_splits(data.source, root=root)
    how = {"root": root, "train_images": data.train_images, "hold_out": data.hold_out, "seed": recipe.engine.seed}
    sources = {split: load_source(data.source, split, **how) for split in splits if split != "all"}
    if "train" not in sources:
        raise UserError(f"{data.source} has no images to train on: it has the splits {', '.join(splits)}")
    source = sources["train"]
    require_classes(source.class_names, data.source)
    found = survey(list(sources.values()), data.source)
    labels = labels_of(source)
    say(
        f"{printable(data.source)}: {_describe_images(source.class_names, labels)}; "
        f"shorter side {found.shorter_side} px, read as RGB; {_describe_held_out(recipe, splits)}"
    )
    recipe = _with_sizes(recipe, len(source.class_names), len(labels), splits)
    candidates = list(_candidates(recipe, found.shorter_side))
    recipe = _fitting(candidates, missing, say)
    flags = [f"--{key} {value_of(recipe, key)}" for key in missing]
    if "model.name" in missing:
        flags += [f"--model.overrides.{field} {value}" for field, value in recipe.model.overrides.items()]
    say(f"following from the data: {' '.join(flags)}")
    return recipe


def _with_sizes(recipe: Recipe, num_classes: int, images: int, splits: tuple[str, ...]) -> Recipe:
    """Fill in what depends on the number of classes and images."""
    engine, given = recipe.engine, recipe.optimizer
    parts = given.accumulate * engine.devices * engine.nodes
    batch_size = given.batch_size
    if batch_size is None:
        power = max(8, min(128, 2 ** (max(1, images // STEPS_AN_EPOCH).bit_length() - 1)))
        batch_size = max(parts, min(power, images) // parts * parts)
    # Smaller batches are noisier: the rate is proportional to the square root of their size.
    rate = RATE_OF_128 * (batch_size / 128) ** 0.5 if given.learning_rate is None else given.learning_rate
    epochs = recipe.schedule.epochs
    if epochs is None:
        epochs = max(10, min(200, round(IMAGES_SEEN / images)))
    warmup = recipe.schedule.warmup_epochs
    split = recipe.data.test_split or ("test" if "test" in splits else "validation")
    recipe = replaced(recipe, "model", num_classes=recipe.model.num_classes or num_classes)
    recipe = replaced(recipe, "data", test_split=split)
    recipe = replaced(recipe, "optimizer", batch_size=batch_size, learning_rate=round(rate, 4))
    warmup = _warmup(epochs) if warmup is None else warmup
    return replaced(recipe, "schedule", epochs=epochs, warmup_epochs=warmup)


def _warmup(epochs: int) -> float:
    return round(0.05 * epochs, 2)


def _candidates(recipe: Recipe, shorter_side: int) -> Iterator[Recipe]:
    """Yield the recipe with each network and image size that fits its images, the slowest first."""
    choices = FOR_PHOTOGRAPHS if shorter_side >= 96 else FOR_SMALL_IMAGES
    fitting = [choice for choice in choices if choice.image_size <= max(shorter_side, 32)]
    seen = []
    for choice in fitting:
        model, augmentation = recipe.model, recipe.data.augmentation
        if model.name is None:
            model = dataclasses.replace(model, name=choice.name, overrides=choice.overrides | model.overrides)
        image_size = choice.image_size if augmentation.image_size is None else augmentation.image_size
        # A picture about as large as the input of the network leaves no choice of a crop.
        crop = augmentation.train_crop or ("random_resized" if shorter_side >= 1.5 * image_size else "pad")
        augmentation = dataclasses.replace(augmentation, image_size=image_size, train_crop=crop)
        candidate = dataclasses.replace(replaced(recipe, "data", augmentation=augmentation), model=model)
        if candidate not in seen:
            seen.append(candidate)
            yield candidate


def _fitting(candidates: list[Recipe], missing: list[str], say: Callable[[str], None]) -> Recipe:
    """Choose the first that trains within half an hour; if none does, the last one, with fewer epochs."""

    def describe(recipe: Recipe) -> str:
        return f"{recipe.model.name} at {recipe.data.augmentation.image_size} px"

    def shorten(recipe: Recipe, part: float, time_needed: str) -> tuple[Recipe, float]:
        if "schedule.epochs" not in missing:
            return recipe, 1.0
        before = recipe.schedule
        epochs = max(1, int(before.epochs * part))
        say(f"{before.epochs} epochs would take about {time_needed}: taking {epochs}")
        warmup = _warmup(epochs) if "schedule.warmup_epochs" in missing else before.warmup_epochs
        recipe = replaced(recipe, "schedule", epochs=epochs, warmup_epochs=min(warmup, epochs))
        return recipe, epochs / before.epochs

    return choose_by_time(candidates, estimate_seconds, describe, shorten, say)


def estimate_seconds(recipe: Recipe) -> float:
    """Estimate from a few steps how many seconds a complete recipe trains, reading the images included."""
    data = ClassificationData.of(recipe)
    reading, preparing, images = _time_images(data, min(recipe.optimizer.batch_size, MOST_IMAGES))
    device = choose_device("cpu" if recipe.engine.accelerator == "cpu" else "auto")
    step = _time_step(Classifier.of(recipe).network.to(device), images.to(device)) / len(images)
    training = len(data.train_dataset())
    validation = 0 if data.data.validation_split is None else len(data.evaluation_dataset(data.data.validation_split))
    # Evaluation has no backward pass, which takes two thirds of a step.
    an_epoch = training * (step + preparing) + validation * (step / 3 + preparing) + EPOCH_SECONDS
    times_read = 1 if recipe.data.shrink is not None else recipe.schedule.epochs
    return times_read * (training + validation) * reading + recipe.schedule.epochs * an_epoch


def _time_images(data: ClassificationData, count: int) -> tuple[float, float, torch.Tensor]:
    """Time reading an image for the first time and preparing it again; also return some prepared images."""
    dataset = data.train_dataset()
    keys = [(0, index) for index in range(0, len(dataset), max(1, len(dataset) // count))][:count]
    start = time.perf_counter()
    items = [dataset[key] for key in keys]
    first = (time.perf_counter() - start) / len(keys)
    start = time.perf_counter()
    for key in keys:
        dataset[key]
    again = (time.perf_counter() - start) / len(keys)
    if data.data.shrink is None:
        return first, 0.0, torch.stack([image for image, _ in items])
    return max(0.0, first - again), again, torch.stack([image for image, _ in items])


def _time_step(network: torch.nn.Module, images: torch.Tensor) -> float:
    """Time a forward and backward pass and an optimizer step, in seconds."""
    targets = torch.zeros(len(images), dtype=torch.long, device=images.device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-6, momentum=0.9, nesterov=True)
    network.train()

    def step(number: int) -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(images), targets).backward()
        optimizer.step()

    return median_seconds(step, images.device)


def _describe_images(class_names: list[str], labels: list[int]) -> str:
    counts = Counter(labels)
    classes = describe_counts(class_names, [counts[label] for label in range(len(class_names))])
    return f"{len(labels)} images to train on in {len(class_names)} classes ({classes})"


def _describe_held_out(recipe: Recipe, splits: tuple[str, ...]) -> str:
    part = recipe.data.hold_out
    if part is None or "all" not in splits:
        return f"splits {', '.join(splits)}"
    return (
        f"no split of its own, so {100 * part:g} % of each class, drawn by the files' names and the seed "
        f"{recipe.engine.seed}, are held out to measure on"
    )
