import torch

from halonet.benchmark.race import WARM_UPS, make_step, race
from tests.benchmark.tiny import SETTINGS


def test_contestants_take_turns_and_warm_up():
    calls = []
    result = race({name: lambda name=name: calls.append(name) for name in "ab"}, SETTINGS)
    assert calls == ["a", "b"] * (SETTINGS.repeats + WARM_UPS)
    for low, median, high in result.values():
        assert 0 <= low <= median <= high


def test_rounds_for_warming_up_are_not_timed(monkeypatch):
    now = [0.0]
    seconds = iter([100.0] * WARM_UPS + [1.0] * SETTINGS.repeats)
    monkeypatch.setattr("halonet.benchmark.race.time.perf_counter", lambda: now[0])

    def step():
        now[0] += next(seconds)

    assert race({"a": step}, SETTINGS) == {"a": [1000.0, 1000.0, 1000.0]}


def test_a_forward_pass_keeps_no_graph():
    modes = []
    leaf = torch.ones(2, requires_grad=True)

    def run():
        modes.append(torch.is_grad_enabled())
        return leaf * 2

    make_step(run, [leaf], training=False)()
    assert modes == [False]
    assert leaf.grad is None


def test_a_training_pass_has_fresh_gradients_that_are_the_same_each_time():
    leaf = torch.ones(2, requires_grad=True)
    step = make_step(lambda: leaf * 2, [leaf], training=True)
    step()
    first = leaf.grad.clone()
    step()
    assert torch.equal(leaf.grad, first)
    assert first.count_nonzero() == 2
