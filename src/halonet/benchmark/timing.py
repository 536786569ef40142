"""Time calls in turns, so that other work on the machine affects all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from halonet.benchmark.settings import Settings

WARM_UPS = 2
# An accelerator works through its queue while Python goes on, so a host's clock can only time many calls together, and
# a sample this long makes the wait at its end negligible.
LEAST_MILLISECONDS = 10.0
# Clock cycles (some 10 ms) that a GPU sleeps while Python queues at most this many calls: otherwise kernels of a few
# microseconds would be timed by how fast they are launched.
SLEEP_CLOCKS = 20_000_000
MOST_QUEUED = 16


def synchronize(device: str) -> None:
    """Wait for an accelerator; a CPU is never ahead."""
    if device != "cpu":
        torch.accelerator.synchronize(device)


def calls_per_sample(step: Callable[[], object], device: str) -> int:
    """Choose how many calls to time together: one on a CPU, elsewhere enough to take `LEAST_MILLISECONDS`."""
    if device == "cpu":
        return 1
    for _ in range(WARM_UPS):
        step()
    calls = 1
    while calls * time_calls(step, calls, device) < LEAST_MILLISECONDS:
        calls *= 2
    return calls


def time_calls(step: Callable[[], object], calls: int, device: str) -> float:
    """Time some calls together by the host's clock; return the milliseconds of one."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(calls):
        step()
    synchronize(device)
    return 1e3 * (time.perf_counter() - start) / calls


def time_on_device(step: Callable[[], object], calls: int) -> float:
    """Time some calls by events of a CUDA device that sleeps until they are queued; the milliseconds of one."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda._sleep(SLEEP_CLOCKS)
    start.record()
    for _ in range(calls):
        step()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / calls


def time_in_turns(
    steps: Mapping[str, Callable[[], object]],
    settings: Settings,
    *,
    device_time: bool = False,
    warm_ups: int = WARM_UPS,
) -> dict[str, list[float]]:
    """Time all steps in turns, after some rounds that are not timed.

    On an accelerator each turn is as many calls as take about ten milliseconds, and its time is divided by them.

    Args:
        steps: What to run, by name.
        settings: Number of repeats, and the device.
        device_time: Whether to take a CUDA device's own time, which excludes what Python needs to launch kernels.
        warm_ups: Rounds that are not timed.

    Returns:
        Lower quartile, median and upper quartile of each step's times, in milliseconds.
    """
    milliseconds: dict[str, list[float]] = {name: [] for name in steps}
    calls = {name: calls_per_sample(step, settings.device) for name, step in steps.items()}
    device_time = device_time and torch.device(settings.device).type == "cuda"
    for repeat in range(settings.repeats + warm_ups):
        for name, step in steps.items():
            if device_time:
                taken = time_on_device(step, min(calls[name], MOST_QUEUED))
            else:
                taken = time_calls(step, calls[name], settings.device)
            if repeat >= warm_ups:
                milliseconds[name].append(taken)
    return {name: statistics.quantiles(times, n=4, method="inclusive") for name, times in milliseconds.items()}


def make_step(run: Callable[[], Tensor], leaves: list[Tensor], training: bool) -> Callable[[], None]:
    """Make one pass: forward without gradients, or forward and backward with fresh ones of `leaves`.

    The backward pass always has the same random gradient of the output.
    """
    gradient: list[Tensor] = []

    def forward() -> None:
        with torch.no_grad():
            run()

    def forward_and_backward() -> None:
        for leaf in leaves:
            leaf.grad = None
        output = run()
        if not gradient:  # made after the first output, whose memory layout it takes
            gradient.append(torch.randn_like(output))
        output.backward(gradient[0])

    return forward_and_backward if training else forward
