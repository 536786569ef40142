import pytest

from halonet.classification.schedule import learning_rate_factor

TOTAL, WARMUP = 100, 10


def factors(warmup_steps: int = WARMUP, final_fraction: float = 1 / 128) -> list[float]:
    return [learning_rate_factor(step, warmup_steps, TOTAL, final_fraction) for step in range(TOTAL)]


def test_the_warm_up_is_linear_and_ends_at_the_peak():
    assert factors()[:WARMUP] == [(step + 1) / WARMUP for step in range(WARMUP)]


def test_the_last_step_has_the_final_fraction():
    assert factors()[-1] == 1 / 128
    assert factors(warmup_steps=0)[-1] == 1 / 128
    assert learning_rate_factor(TOTAL + 5, WARMUP, TOTAL, 1 / 128) == 1 / 128


def test_the_cosine_is_half_way_down_in_the_middle():
    cosine = factors()[WARMUP:]
    assert cosine[0] == 1
    assert cosine == sorted(cosine, reverse=True)
    middle = learning_rate_factor(5, 0, 11, 1 / 128)
    assert middle == pytest.approx((1 + 1 / 128) / 2)


def test_a_run_without_warm_up_begins_at_the_peak():
    assert factors(warmup_steps=0)[0] == 1


def test_a_run_may_consist_of_warm_up():
    assert [learning_rate_factor(step, 3, 3, 0.5) for step in range(3)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert learning_rate_factor(3, 3, 4, 0.5) == 0.5
