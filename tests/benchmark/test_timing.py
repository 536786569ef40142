import dataclasses

import pytest
import torch

from halonet.benchmark.timing import WARM_UPS, calls_per_sample, make_step, time_in_turns
from tests.benchmark.tiny import SETTINGS


def test_steps_take_turns_and_warm_up():
    calls = []
    result = time_in_turns({name: lambda name=name: calls.append(name) for name in "ab"}, SETTINGS)
    assert calls == ["a", "b"] * (SETTINGS.repeats + WARM_UPS)
    for low, median, high in result.values():
        assert 0 <= low <= median <= high


def test_warm_ups_are_not_timed(monkeypatch):
    now = [0.0]
    seconds = iter([100.0] * WARM_UPS + [1.0] * SETTINGS.repeats)
    monkeypatch.setattr("halonet.benchmark.timing.time.perf_counter", lambda: now[0])

    def step():
        now[0] += next(seconds)

    assert time_in_turns({"a": step}, SETTINGS) == {"a": [1000.0, 1000.0, 1000.0]}


@pytest.fixture
def accelerator(monkeypatch):
    """Settings of a device that works behind the clock's back: a step takes its time when it is waited for."""
    now, queued = [0.0], [0.0]

    def wait(device):
        now[0] += queued[0]
        queued[0] = 0.0

    monkeypatch.setattr("halonet.benchmark.timing.time.perf_counter", lambda: now[0])
    monkeypatch.setattr("halonet.benchmark.timing.synchronize", wait)

    def step_of(milliseconds, calls):
        def step():
            calls.append(milliseconds)
            queued[0] += milliseconds / 1e3

        return step

    return dataclasses.replace(SETTINGS, device="meta"), step_of


def test_an_accelerator_is_timed_over_at_least_ten_milliseconds(accelerator):
    settings, step_of = accelerator
    short, long = [], []
    result = time_in_turns({"short": step_of(0.03, short), "long": step_of(200.0, long)}, settings)
    assert result["short"] == pytest.approx([0.03] * 3)
    assert result["long"] == pytest.approx([200.0] * 3)
    calibration = WARM_UPS + sum(2**power for power in range(10))
    assert len(short) == calibration + 512 * (settings.repeats + WARM_UPS), "512 of 0.03 ms are the first over 10 ms"
    assert len(long) == WARM_UPS + 1 + settings.repeats + WARM_UPS


def test_the_first_calls_on_an_accelerator_do_not_count_as_long(accelerator):
    settings, step_of = accelerator
    calls = []
    steps = iter([step_of(1000.0, calls)] * WARM_UPS)
    short = step_of(1.0, calls)
    assert calls_per_sample(lambda: next(steps, short)(), settings.device) == 16


def test_device_time_is_taken_while_the_device_sleeps(accelerator, monkeypatch):
    settings, step_of = accelerator
    log = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            log.append("event")

        def synchronize(self):
            log.append("wait")

        def elapsed_time(self, end):
            return 8.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda clocks: log.append("sleep"))
    on_cuda = dataclasses.replace(settings)
    object.__setattr__(on_cuda, "device", "cuda")  # made so, it would look for the device
    result = time_in_turns({"short": step_of(0.03, log)}, on_cuda, device_time=True)
    assert result["short"] == [0.5] * 3, "8 ms of 16 calls"
    turn = ["sleep", "event", *[0.03] * 16, "event", "wait"]
    assert log[-(settings.repeats + WARM_UPS) * len(turn) :] == turn * (settings.repeats + WARM_UPS)
    log.clear()
    time_in_turns({"short": step_of(0.03, log)}, on_cuda)
    assert set(log) == {0.03}, "unless it is asked for, the host's clock counts"


def test_a_cpu_is_timed_call_by_call():
    def never():
        raise AssertionError("a CPU needs no calls to calibrate")

    assert calls_per_sample(never, "cpu") == 1


def test_a_forward_pass_keeps_no_graph():
    modes = []
    leaf = torch.ones(2, requires_grad=True)

    def run():
        modes.append(torch.is_grad_enabled())
        return leaf * 2

    make_step(run, [leaf], training=False)()
    assert modes == [False]
    assert leaf.grad is None


def test_a_training_pass_has_fresh_equal_gradients():
    leaf = torch.ones(2, requires_grad=True)
    step = make_step(lambda: leaf * 2, [leaf], training=True)
    step()
    first = leaf.grad.clone()
    step()
    assert torch.equal(leaf.grad, first)
    assert first.count_nonzero() == 2
