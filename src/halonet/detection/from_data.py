"""Fills in what a recipe of detection leaves null from the data, so that everything else sees a complete recipe."""

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from halonet.console import printable
from halonet.data.detection.coco import CocoImages, available_detection_splits, load_detection_source
from halonet.detection.data import DetectionData
from halonet.detection.module import Detector
from halonet.detection.recipe import DetectionRecipe
from halonet.engine.device import choose_device
from halonet.engine.estimate import choose_by_time, describe_counts, median_seconds
from halonet.errors import UserError
from halonet.recipes.schema import replaced, value_of

SIDES = (768, 640, 512, 384, 320, 256)  # pixels of the longer side
SMALLEST_OBJECT = 16  # pixels of the network's input, the side of the smallest anchor
BATCH = 4
RATE_PER_IMAGE = 0.005  # the embedded nuclei learn at 0.02 in batches of 4
FEWEST_STEPS, MOST_STEPS, EPOCHS = 400, 2_000, 40
VALIDATIONS = 10  # in a run; each takes every image of its split


def fill_in(recipe: DetectionRecipe, *, say: Callable[[str], None] = print) -> DetectionRecipe:
    """Fill in what a recipe leaves null from its data.

    The image size is the smallest of a list at which nine of ten objects are as large as an anchor, or the largest
    smaller one that trains within half an hour, as estimated from a few steps; with several processes nothing is timed.
    The detector draws masks if every object has one. Values that are not null stay.

    Args:
        recipe: With `data.source`.
        say: Called with each line about what was found and chosen.

    Returns:
        The complete recipe; the same object if nothing was null.

    Raises:
        UserError: `data.source` is null, or the data cannot be read.
    """
    data = recipe.data
    if data.source is None:
        raise UserError(
            f"recipe {recipe.name}: data.source is null: name your folder of images, with annotations in COCO's "
            "format, with --data.source DIR"
        )
    missing = recipe.missing_values()
    if not missing:
        return recipe
    splits = available_detection_splits(data.source, hold_out=data.hold_out or 0.0)
    source = _open(recipe)
    if recipe.model.masks is None and recipe.model.num_classes is None:
        missing.insert(0, "model.masks")
        recipe = replaced(recipe, "model", masks=source.has_masks and source.without_mask == 0)
        source = _open(recipe)
    say(f"{printable(data.source)}: {_describe(source)}; {_describe_splits(recipe, splits)}")
    recipe = _with_numbers(recipe, source, splits)
    recipe = _fitting(recipe, _wanted_side(source), missing, say)
    say("following from the data: " + " ".join(f"--{key} {_shown(value_of(recipe, key))}" for key in missing))
    return recipe


def _open(recipe: DetectionRecipe) -> CocoImages:
    data, masks = recipe.data, recipe.model.masks
    hold_out = data.hold_out or 0.0
    return load_detection_source(data.source, "train", skip_empty=data.skip_empty, masks=masks, hold_out=hold_out)


def _with_numbers(recipe: DetectionRecipe, source: CocoImages, splits: tuple[str, ...]) -> DetectionRecipe:
    """Fill in what depends on the numbers of classes, images and objects."""
    engine, optimizer, schedule = recipe.engine, recipe.optimizer, recipe.schedule
    parts = optimizer.accumulate * engine.devices * engine.nodes
    batch = optimizer.batch_size or max(parts, BATCH // parts * parts)
    rate = round(RATE_PER_IMAGE * batch, 4) if optimizer.learning_rate is None else optimizer.learning_rate
    steps = schedule.steps or max(FEWEST_STEPS, min(MOST_STEPS, round(EPOCHS * len(source) / batch)))
    repeats = recipe.data.repeats or math.ceil(max(steps / VALIDATIONS, 1) * batch / len(source))
    most = max(Counter(entry["image_id"] for entry in source.ground_truth["annotations"]).values(), default=0)
    found = recipe.model.detections_per_image or max(100, math.ceil(2 * most / 100) * 100)
    test_split = recipe.data.test_split or ("test" if "test" in splits else "validation")
    recipe = replaced(
        recipe,
        "model",
        num_classes=recipe.model.num_classes or len(source.class_names),
        detections_per_image=found,
    )
    recipe = replaced(recipe, "data", test_split=test_split, repeats=repeats)
    recipe = replaced(recipe, "optimizer", batch_size=batch, learning_rate=rate)
    warmup = min(100, steps // 8) if schedule.warmup_steps is None else schedule.warmup_steps
    drops = (max(1, round(0.8 * steps)),) if schedule.drops is None else schedule.drops
    return replaced(recipe, "schedule", steps=steps, warmup_steps=warmup, drops=drops)


def _wanted_side(source: CocoImages) -> int:
    """The longer side at which nine of ten objects are as large as an anchor."""
    images = {image["id"]: max(image["width"], image["height"]) for image in source.ground_truth["images"]}
    parts = [
        (entry["bbox"][2] * entry["bbox"][3]) ** 0.5 / images[entry["image_id"]]
        for entry in source.ground_truth["annotations"]
        if not entry["iscrowd"]
    ]
    part = float(np.quantile(parts, 0.1)) if parts else 1.0
    return next((side for side in SIDES[::-1] if side * part >= SMALLEST_OBJECT), SIDES[0])


def _fitting(recipe: DetectionRecipe, wanted: int, missing: list[str], say: Callable[[str], None]) -> DetectionRecipe:
    """Choose the largest size that trains within half an hour; if none does, the smallest, with fewer steps."""
    candidates = []
    for side in SIDES:
        candidate = _with_side(recipe, side)
        if side <= wanted and candidate not in candidates:
            candidates.append(candidate)

    def describe(recipe: DetectionRecipe) -> str:
        return f"images of {recipe.data.augmentation.max_size} px"

    def shorten(recipe: DetectionRecipe, part: float, time_needed: str) -> tuple[DetectionRecipe, float]:
        if "schedule.steps" not in missing:
            return recipe, 1.0
        before = recipe.schedule
        steps, warmup, drops = max(1, int(part * before.steps)), before.warmup_steps, before.drops
        say(f"{before.steps} steps would take about {time_needed}: taking {steps}")
        warmup = int(part * warmup) if "schedule.warmup_steps" in missing else min(warmup, steps)
        if "schedule.drops" in missing:
            drops = tuple(max(1, round(part * drop)) for drop in drops)
        return replaced(recipe, "schedule", steps=steps, warmup_steps=warmup, drops=drops), part

    return choose_by_time(candidates, estimate_seconds, describe, shorten, say)


def _with_side(recipe: DetectionRecipe, side: int) -> DetectionRecipe:
    given = recipe.data.augmentation
    largest = given.max_size or max(side, given.min_size or 0)
    augmentation = dataclasses.replace(
        given,
        min_size=given.min_size or min(side, largest),
        max_size=largest,
        jitter_size=given.jitter_size or side,
    )
    return replaced(recipe, "data", augmentation=augmentation)


def estimate_seconds(recipe: DetectionRecipe) -> float:
    """Estimate from a few steps how many seconds a complete recipe trains, validation included."""
    data = DetectionData.of(recipe)
    device = choose_device("cpu" if recipe.engine.accelerator == "cpu" else "auto")
    detector = Detector.of(recipe, initialized=True).network.to(device)
    step = _time_step(recipe, data.train_dataset(), detector, device)
    validation = 0.0
    if recipe.data.validation_split is not None:
        images = data.evaluation_dataset(recipe.data.validation_split)
        validation = _time_image(images, detector, device) * len(images)
    an_epoch = len(data.train_dataset()) // recipe.optimizer.batch_size
    return recipe.schedule.steps * step + math.ceil(recipe.schedule.steps / max(1, an_epoch)) * validation


def _time_step(recipe: DetectionRecipe, dataset: Any, detector: Any, device: torch.device) -> float:
    """Time an optimizer step in seconds, reading its images included."""
    batch = recipe.optimizer.batch_size // recipe.optimizer.accumulate
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-6)
    detector.train()

    def step(number: int) -> None:
        items = [dataset[number, (number * batch + index) % len(dataset)] for index in range(batch)]
        targets = [
            {name: each.to(device) for name, each in target.items() if name != "image_id"} for _, target in items
        ]
        optimizer.zero_grad()
        losses = detector([image.to(device) for image, _ in items], targets)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()

    return median_seconds(step, device) * recipe.optimizer.accumulate


@torch.inference_mode()
def _time_image(dataset: Any, detector: Any, device: torch.device) -> float:
    """Time a detection, in seconds."""
    detector.eval()
    times = []
    for index in range(min(2, len(dataset))):
        start = time.perf_counter()
        detector.detect([dataset[index][0].to(device)])
        times.append(time.perf_counter() - start)
    return min(times)


def _describe(source: CocoImages) -> str:
    counts = Counter(entry["category_id"] for entry in source.ground_truth["annotations"] if not entry["iscrowd"])
    classes = describe_counts(source.class_names, [counts[category] for category in source.category_ids])
    if not source.has_masks:
        kind = "boxes and no masks"
    elif source.without_mask:
        kind = f"boxes, of which {source.without_mask} have no mask"
    else:
        kind = "boxes and masks"
    return (
        f"{len(source)} images to train on with {counts.total()} objects in {len(source.class_names)} "
        f"class{'es' * (len(source.class_names) != 1)} ({classes}); {kind}"
    )


def _describe_splits(recipe: DetectionRecipe, splits: tuple[str, ...]) -> str:
    part = recipe.data.hold_out
    own = available_detection_splits(str(recipe.data.source))
    if part is None or "validation" in own:
        return f"splits {', '.join(splits)}"
    return (
        f"no validation split of its own, so {100 * part:g} % of the images, drawn by their names, are held out as one"
    )


def _shown(value: Any) -> str:
    """Write a value as the command line takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"[{", ".join(map(str, value))}]"' if isinstance(value, tuple) else str(value)
