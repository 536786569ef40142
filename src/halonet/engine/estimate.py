"""Fits a training into the time that a person waits for it: times a few steps, and takes the first recipe that fits."""

import statistics
import time
from collections.abc import Callable, Sequence

import torch

from halonet.console import printable
from halonet.recipes.schema import RecipeT

LONGEST = 30 * 60  # seconds that a training may take before it is made smaller
MOST_CLASSES_NAMED = 6


def choose_by_time(
    candidates: Sequence[RecipeT],
    estimate: Callable[[RecipeT], float],
    describe: Callable[[RecipeT], str],
    shorten: Callable[[RecipeT, float, str], tuple[RecipeT, float]],
    say: Callable[[str], None],
) -> RecipeT:
    """Choose the first recipe that trains within half an hour; if none does, the last one, shortened.

    Args:
        candidates: From the slowest to the fastest. With several processes the first is taken.
        estimate: Returns the seconds that a recipe trains.
        describe: Names a candidate in messages.
        shorten: Takes a recipe, the part of its length that fits, and its estimated time in words; returns the
            shortened recipe and the part that it kept.
        say: Called with each line about what was chosen.
    """
    recipe, seconds = candidates[0], 0.0
    if recipe.engine.devices * recipe.engine.nodes > 1:
        return recipe  # each process would measure another time
    for recipe in candidates:
        seconds = estimate(recipe)
        if seconds <= LONGEST:
            break
        if recipe is not candidates[-1]:
            say(f"{describe(recipe)} would take about {in_words(seconds)}: taking something smaller")
    else:
        recipe, kept = shorten(recipe, LONGEST / seconds, in_words(seconds))
        seconds *= kept
    say(f"estimated time: {in_words(seconds)}, from a few steps timed here")
    return recipe


def median_seconds(step: Callable[[int], None], device: torch.device, repeats: int = 3) -> float:
    """Time a step, which takes its number, several times after one to warm up."""
    times = []
    for number in range(1 + repeats):
        start = time.perf_counter()
        step(number)
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def describe_counts(names: Sequence[str], counts: Sequence[int]) -> str:
    """List how many images or objects each class has, or the range if there are many classes."""
    if len(names) <= MOST_CLASSES_NAMED:
        return ", ".join(f"{printable(name)} {count}" for name, count in zip(names, counts, strict=True))
    fewest, most = min(counts), max(counts)
    return f"{fewest} in each" if fewest == most else f"{fewest} to {most} in each"


def in_words(seconds: float) -> str:
    """Print a time, roughly."""
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
