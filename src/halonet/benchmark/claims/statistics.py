"""Differences between rows of a few runs each, and their tests; values are in percent, differences in points."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from halonet.benchmark.claims.plan import EFFECTS
from halonet.errors import unknown_name

LEVEL = 0.05
MARGIN = 0.5
"""Points: a smaller difference counts as none."""

SEEN, OPPOSITE, UNDECIDED = "seen", "opposite", "undecided"


@dataclass(frozen=True)
class Estimate:
    """A difference of means, its standard error, and its degrees of freedom after Welch and Satterthwaite."""

    value: float
    error: float
    degrees: float

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval."""
        reach = t_quantile(1 - LEVEL / 2, self.degrees) * self.error
        return self.value - reach, self.value + reach

    @property
    def p_value(self) -> float:
        """The two-sided p-value of no difference."""
        return two_sided_p_value(self._t(abs(self.value)), self.degrees)

    def p_value_of(self, effect: str) -> float:
        """The p-value of an expectation ("higher", "lower" or "none") for Holm's correction.

        For "higher" and "lower" it is two-sided. For "none" it is the larger of two one-sided tests (TOST) against the
        ends of the margin; where the difference is beyond the margin, it is that of a difference equal to the margin.
        """
        _check_effect(effect)
        if effect != "none":
            return self.p_value
        beyond = abs(self.value) - MARGIN
        two_sided = two_sided_p_value(self._t(abs(beyond)), self.degrees)
        return two_sided if beyond > 0 else two_sided / 2  # the nearer end of the margin has the larger p-value

    def _t(self, distance: float) -> float:
        if self.error:
            return distance / self.error
        return math.inf if distance else 0.0


def mean(values: Sequence[float]) -> float:
    """Average at least one value."""
    return float(statistics.mean(values))  # exact, so that equal values have themselves as mean, and no deviation


def deviation(values: Sequence[float]) -> float:
    """Estimate the standard deviation from at least two values, by n - 1."""
    return float(statistics.stdev(values))


def difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Estimate first - second, each of at least two values, as Welch's test does."""
    return _estimate([(1, first), (-1, second)])


def contrast(a: Sequence[float], b: Sequence[float], c: Sequence[float], d: Sequence[float]) -> Estimate:
    """Estimate (a - b) - (c - d), each of at least two values."""
    return _estimate([(1, a), (-1, b), (-1, c), (1, d)])


def verdict(interval: tuple[float, float], effect: str) -> str:
    """Judge an expectation ("higher", "lower" or "none") by the interval of the difference.

    "higher" and "lower" are "seen" if the whole interval has the sign, "opposite" if it has the other one. "none" is
    "seen" if the whole interval is within `MARGIN` of 0, "opposite" if all of it is beyond, on one side. All else is
    "undecided".
    """
    _check_effect(effect)
    low, high = interval
    if effect == "lower":
        low, high = -high, -low
    if effect == "none":
        is_seen = low >= -MARGIN and high <= MARGIN
        is_opposite = low > MARGIN or high < -MARGIN
    else:
        is_seen = low > 0
        is_opposite = high < 0
    return SEEN if is_seen else OPPOSITE if is_opposite else UNDECIDED


def holm(p_values: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Say which tests hold after Holm's step-down correction; `level` is the chance that any of them errs."""
    holds = [False] * len(p_values)
    for step, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        if p_values[index] > level / (len(p_values) - step):
            break
        holds[index] = True
    return holds


def two_sided_p_value(t: float, degrees: float) -> float:
    """Compute the probability that |T| exceeds t >= 0, of Student's distribution."""
    if math.isinf(t):
        return 0.0
    square = t * t
    return _incomplete_beta(degrees / (degrees + square), square / (degrees + square), degrees / 2, 0.5)


def t_quantile(probability: float, degrees: float) -> float:
    """Find what Student's T stays below with a probability strictly between 0 and 1."""
    if probability < 0.5:
        return -t_quantile(1 - probability, degrees)
    tails = 2 * (1 - probability)
    low, high = 0.0, 1.0
    while two_sided_p_value(high, degrees) > tails:
        low, high = high, 2 * high
    while low < (middle := (low + high) / 2) < high:
        if two_sided_p_value(middle, degrees) > tails:
            low = middle
        else:
            high = middle
    return high


def _estimate(groups: list[tuple[int, Sequence[float]]]) -> Estimate:
    value = math.fsum(sign * mean(values) for sign, values in groups)
    variances = [deviation(values) ** 2 / len(values) for _, values in groups]
    total = math.fsum(variances)
    freedoms = [len(values) - 1 for _, values in groups]
    # Satterthwaite's formula is 0 / 0 where no group varies; any number of degrees gives the same interval then.
    if not total:
        return Estimate(value, 0.0, float(sum(freedoms)))
    shares = [(variance / total) ** 2 / freedom for variance, freedom in zip(variances, freedoms, strict=True)]
    return Estimate(value, math.sqrt(total), 1 / math.fsum(shares))


def _check_effect(effect: str) -> None:
    if effect not in EFFECTS:
        raise ValueError(unknown_name("effect", effect, EFFECTS))


def _incomplete_beta(x: float, rest: float, a: float, b: float) -> float:
    """The regularized incomplete beta function I_x(a, b); `rest` is 1 - x, passed so that neither loses digits."""
    if x <= 0 or rest <= 0:
        return 0.0 if x <= 0 else 1.0
    # The fraction converges fast below the mean; beyond, the other side is computed.
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(rest, x, b, a)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    return math.exp(scale) / (a * _beta_fraction(x, a, b))


def _beta_fraction(x: float, a: float, b: float) -> float:
    """1 + d1 / (1 + d2 / (1 + ...)) of DLMF 8.17.22, evaluated from the front (Lentz)."""
    fraction, numerator, denominator = 1.0, 1.0, 0.0
    for step in range(1, 1000):
        half = step // 2
        if step % 2:
            term = -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
        else:
            term = half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
        numerator = 1 + term / numerator
        denominator = 1 / (1 + term * denominator)
        factor = numerator * denominator
        fraction *= factor
        if abs(factor - 1) < 1e-15:
            break
    return fraction
