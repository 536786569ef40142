import math

import pytest

from halonet.benchmark.claims.statistics import (
    MARGIN,
    Estimate,
    contrast,
    deviation,
    difference,
    holm,
    mean,
    t_quantile,
    two_sided_p_value,
    verdict,
)

A, B = [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 4.0, 6.0, 8.0, 10.0]


def integrate(t: float, degrees: float) -> float:
    """P(|T| <= t) by Simpson's rule on the density."""
    scale = math.gamma((degrees + 1) / 2) / (math.sqrt(degrees * math.pi) * math.gamma(degrees / 2))
    parts = 4000
    weights = [1, *(4 if index % 2 else 2 for index in range(1, parts)), 1]
    values = [(1 + (t * index / parts) ** 2 / degrees) ** (-(degrees + 1) / 2) for index in range(parts + 1)]
    return 2 * scale * t / parts / 3 * math.fsum(w * v for w, v in zip(weights, values, strict=True))


@pytest.mark.parametrize("t", [0.0, 1e-6, 0.3, 1.0, 1.7, 4.0, 60.0])
def test_the_distribution_has_its_closed_forms(t):
    cauchy = 1 - 2 * math.atan(t) / math.pi
    two = 1 - t / math.sqrt(2 + t * t)
    three = 1 - 2 / math.pi * (t / math.sqrt(3) / (1 + t * t / 3) + math.atan(t / math.sqrt(3)))
    four = 1 - t / math.sqrt(4 + t * t) * (1.5 - 0.5 * t * t / (4 + t * t))
    for degrees, expected in ((1.0, cauchy), (2.0, two), (3.0, three), (4.0, four)):
        assert two_sided_p_value(t, degrees) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("degrees", [1.2, 2.5, 5.88, 7.3, 31.4])
@pytest.mark.parametrize("t", [0.01, 0.5, 1.0, 2.0, 3.5])
def test_the_distribution_is_the_integral_of_its_density_for_any_degrees(t, degrees):
    assert two_sided_p_value(t, degrees) == pytest.approx(1 - integrate(t, degrees), abs=1e-9)


def test_many_degrees_are_nearly_the_normal_distribution():
    assert two_sided_p_value(1.96, 1e6) == pytest.approx(math.erfc(1.96 / math.sqrt(2)), rel=1e-5)


@pytest.mark.parametrize(
    ("probability", "degrees", "expected"),
    [
        (0.975, 1.0, 12.706205),
        (0.975, 2.0, 4.302653),
        (0.975, 4.0, 2.776445),
        (0.975, 8.0, 2.306004),
        (0.95, 4.0, 2.131847),
        (0.995, 3.0, 5.840909),
        (0.975, 120.0, 1.979930),
        (0.025, 4.0, -2.776445),
        (0.5, 4.0, 0.0),
    ],
)
def test_quantiles_are_those_of_tables(probability, degrees, expected):
    assert t_quantile(probability, degrees) == pytest.approx(expected, abs=1e-6)


def test_a_quantile_for_part_of_a_degree_leaves_its_probability_outside():
    quantile = t_quantile(0.975, 2.5)
    assert quantile == pytest.approx(3.5747, abs=1e-4)
    assert integrate(quantile, 2.5) == pytest.approx(0.95, abs=1e-9)


def test_the_deviation_is_that_of_a_sample():
    assert mean(A) == 3.0
    assert deviation(A) == pytest.approx(math.sqrt(2.5))
    assert deviation([0.1, 0.1, 0.1]) == 0.0


def test_a_difference_is_welchs():
    # Variances of the means: 2.5 / 5 and 10 / 5. Degrees: 2.5^2 / (0.5^2 / 4 + 2^2 / 4).
    estimate = difference(A, B)
    assert estimate.value == -3.0
    assert estimate.error == pytest.approx(math.sqrt(2.5))
    assert estimate.degrees == pytest.approx(100 / 17)
    t = 3 / math.sqrt(2.5)
    assert estimate.p_value == pytest.approx(1 - integrate(t, 100 / 17), abs=1e-9)
    low, high = estimate.interval
    assert (low + high) / 2 == pytest.approx(-3.0)
    assert integrate((high - low) / 2 / math.sqrt(2.5), 100 / 17) == pytest.approx(0.95, abs=1e-9)


def test_groups_of_unequal_size_weigh_by_their_own_size():
    estimate = difference(A[:3], B)  # variances of the means 1 / 3 and 2
    assert estimate.error == pytest.approx(math.sqrt(7 / 3))
    assert estimate.degrees == pytest.approx((7 / 3) ** 2 / ((1 / 3) ** 2 / 2 + 2**2 / 4))


def test_equal_variances_have_the_degrees_of_students_test():
    assert difference(A, [value + 7 for value in A]).degrees == pytest.approx(8.0)


def test_a_contrast_is_of_four_groups():
    estimate = contrast(B, A, A, [value - 1 for value in B])
    assert estimate.value == pytest.approx((6 - 3) - (3 - 5))
    assert estimate.error == pytest.approx(math.sqrt(5.0))
    assert estimate.degrees == pytest.approx(25 / (2 * 0.5**2 / 4 + 2 * 2**2 / 4))


def test_groups_that_do_not_vary_have_an_interval_without_width():
    same = difference([3.0, 3.0], [3.0, 3.0])
    assert (same.interval, same.p_value) == ((0.0, 0.0), 1.0)
    other = difference([4.0, 4.0], [3.0, 3.0])
    assert (other.interval, other.p_value) == ((1.0, 1.0), 0.0)
    one = difference([4.0, 4.0], A)
    assert one.degrees == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("interval", "effect", "expected"),
    [
        ((0.1, 2.0), "higher", "seen"),
        ((0.0, 2.0), "higher", "undecided"),
        ((-0.1, 2.0), "higher", "undecided"),
        ((-2.0, 0.0), "higher", "undecided"),
        ((-2.0, -0.1), "higher", "opposite"),
        ((-2.0, -0.1), "lower", "seen"),
        ((-2.0, 0.0), "lower", "undecided"),
        ((0.1, 2.0), "lower", "opposite"),
        ((-0.5, 0.5), "none", "seen"),
        ((0.1, 0.4), "none", "seen"),
        ((-0.4, 0.51), "none", "undecided"),
        ((-0.51, 0.4), "none", "undecided"),
        ((-3.0, 3.0), "none", "undecided"),
        ((0.5, 3.0), "none", "undecided"),
        ((0.51, 3.0), "none", "opposite"),
        ((-3.0, -0.51), "none", "opposite"),
    ],
)
def test_a_verdict_needs_the_whole_interval(interval, effect, expected):
    assert verdict(interval, effect) == expected


def test_an_unknown_effect_is_refused():
    with pytest.raises(ValueError, match="unknown effect 'hihger'. Did you mean 'higher'?"):
        verdict((0.0, 1.0), "hihger")
    with pytest.raises(ValueError, match="unknown effect"):
        Estimate(1.0, 1.0, 4.0).p_value_of("more")


def test_a_direction_enters_with_the_two_sided_p_value():
    estimate = difference(A, B)
    assert estimate.p_value_of("higher") == estimate.p_value_of("lower") == estimate.p_value


@pytest.mark.parametrize("value", [-0.3, 0.0, 0.2, 0.45])
def test_no_difference_enters_with_the_larger_of_two_one_sided_p_values(value):
    estimate = Estimate(value, 0.2, 3.0)

    def above(t):
        half = two_sided_p_value(abs(t), 3.0) / 2
        return half if t >= 0 else 1 - half

    expected = max(above((value + MARGIN) / 0.2), above((MARGIN - value) / 0.2))
    assert estimate.p_value_of("none") == pytest.approx(expected)


@pytest.mark.parametrize("value", [-2.5, 0.7, 2.5])
def test_a_difference_beyond_the_margin_enters_by_its_distance_to_it(value):
    p_value = Estimate(value, 0.4, 5.0).p_value_of("none")
    assert p_value == pytest.approx(Estimate(abs(value) - MARGIN, 0.4, 5.0).p_value)


@pytest.mark.parametrize("effect", ["higher", "lower", "none"])
def test_a_verdict_has_a_small_p_value(effect):
    for value in (-3.0, -1.0, -0.6, -0.2, 0.0, 0.2, 0.6, 1.0, 3.0):
        for error in (0.01, 0.1, 0.3, 1.0):
            estimate = Estimate(value, error, 6.0)
            if verdict(estimate.interval, effect) != "undecided":
                assert estimate.p_value_of(effect) <= 0.05, (value, error)


def test_holms_correction_steps_down_and_stops():
    # Thresholds 0.05 / 4, / 3, / 2, / 1: the third fails, and with it the fourth, though 0.045 < 0.05.
    assert holm([0.045, 0.012, 0.001, 0.03]) == [False, True, True, False]
    assert holm([0.0125, 0.016, 0.025, 0.05]) == [True] * 4
    assert holm([0.0126, 0.0126, 0.0126, 0.0126]) == [False] * 4
    assert holm([0.03, 0.01], level=0.1) == [True, True]
    assert holm([]) == []
