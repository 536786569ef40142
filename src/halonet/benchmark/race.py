"""Runs that take turns, so that what else the machine does meets all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from halonet.benchmark.settings import Settings

WARM_UPS = 2


def synchronize(device: str) -> None:
    """Wait for an accelerator; a CPU is never ahead."""
    if device != "cpu":
        torch.accelerator.synchronize()


def race(steps: Mapping[str, Callable[[], object]], settings: Settings) -> dict[str, list[float]]:
    """Time all steps in alternation, after two rounds that are not timed.

    Args:
        steps: What to run, by contestant.
        settings: Says how often, and on what device.

    Returns:
        For each contestant the quartiles of its times, in milliseconds: lower, median, upper.
    """
    milliseconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(settings.repeats + WARM_UPS):
        for name, step in steps.items():
            synchronize(settings.device)
            start = time.perf_counter()
            step()
            synchronize(settings.device)
            if repeat >= WARM_UPS:
                milliseconds[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.quantiles(times, n=4, method="inclusive") for name, times in milliseconds.items()}


def make_step(run: Callable[[], Tensor], leaves: list[Tensor], training: bool) -> Callable[[], None]:
    """Make one pass: forward without gradients, or forward and backward with fresh ones.

    Args:
        run: Computes the output.
        leaves: What takes gradients.
        training: Whether there is a backward pass; its gradient is the same random one every time.
    """
    gradient: list[Tensor] = []

    def forward() -> None:
        with torch.no_grad():
            run()

    def forward_and_backward() -> None:
        for leaf in leaves:
            leaf.grad = None
        output = run()
        if not gradient:  # it lies in memory as the output does, as a network's does
            gradient.append(torch.randn_like(output))
        output.backward(gradient[0])

    return forward_and_backward if training else forward
