"""Runs that take turns, so that what else the machine does meets all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from halonet.benchmark.settings import Settings

WARM_UPS = 2
# An accelerator works through its queue while Python goes on; a host's clock sees a call of microseconds only as one of
# many, and this long a sample makes the wait at its end not count.
LEAST_MILLISECONDS = 10.0
# Clocks that a GPU is made to wait, some 10 ms, while Python enqueues this many calls at most: kernels of microseconds
# would else be timed by how fast they are launched.
HEAD_START = 20_000_000
MOST_AHEAD = 16


def synchronize(device: str) -> None:
    """Wait for an accelerator; a CPU is never ahead."""
    if device != "cpu":
        torch.accelerator.synchronize(device)


def calls_of_a_sample(step: Callable[[], object], device: str) -> int:
    """Say how many calls are timed together: one on a CPU, elsewhere enough to take `LEAST_MILLISECONDS`."""
    if device == "cpu":
        return 1
    for _ in range(WARM_UPS):
        step()
    calls = 1
    while calls * sample(step, calls, device) < LEAST_MILLISECONDS:
        calls *= 2
    return calls


def sample(step: Callable[[], object], calls: int, device: str) -> float:
    """Time so many calls together, and return the milliseconds of one."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(calls):
        step()
    synchronize(device)
    return 1e3 * (time.perf_counter() - start) / calls


def sample_of_device(step: Callable[[], object], calls: int) -> float:
    """Time so many calls on a CUDA device that waits until they are enqueued; the milliseconds of one."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda._sleep(HEAD_START)
    start.record()
    for _ in range(calls):
        step()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / calls


def race(
    steps: Mapping[str, Callable[[], object]], settings: Settings, *, of_device: bool = False
) -> dict[str, list[float]]:
    """Time all steps in alternation, after two rounds that are not timed.

    On an accelerator each turn is as many calls as take about ten milliseconds, and its time is divided by them.

    Args:
        steps: What to run, by contestant.
        settings: Says how often, and on what device.
        of_device: Whether a CUDA device's own time counts, and not what Python needs to launch what it runs.

    Returns:
        For each contestant the quartiles of its times, in milliseconds: lower, median, upper.
    """
    milliseconds: dict[str, list[float]] = {name: [] for name in steps}
    calls = {name: calls_of_a_sample(step, settings.device) for name, step in steps.items()}
    of_device = of_device and torch.device(settings.device).type == "cuda"
    for repeat in range(settings.repeats + WARM_UPS):
        for name, step in steps.items():
            if of_device:
                taken = sample_of_device(step, min(calls[name], MOST_AHEAD))
            else:
                taken = sample(step, calls[name], settings.device)
            if repeat >= WARM_UPS:
                milliseconds[name].append(taken)
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
