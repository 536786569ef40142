import dataclasses

import pytest

import halonet
from halonet.benchmark.peak import Peak, Work, count_work, measure_peak, visible_pairs
from halonet.benchmark.sizes import SIZES, Size
from halonet.models import count_macs
from tests.benchmark.tiny import SETTINGS, SIZE


def sees(size, query, key):
    """Whether a query sees a key along one axis, said without arithmetic of blocks."""
    if size.centered:
        return abs(query - key) <= size.halo
    block = [pixel for pixel in range(1000) if pixel // size.block == query // size.block]
    return min(abs(key - pixel) for pixel in block) <= size.halo


@pytest.mark.parametrize(
    "change", [{}, {"rows": 13, "columns": 9}, {"stride": 2}, {"centered": True}, {"block": 32}, {"halo": 0}]
)
def test_visible_pairs_are_those_that_a_loop_counts(change):
    size = dataclasses.replace(SIZE, **change)
    pairs = 1
    for length in (size.rows, size.columns):
        pairs *= sum(sees(size, query, key) for query in range(0, length, size.stride) for key in range(length))
    assert visible_pairs(size) == pairs


def test_the_pairs_of_a_model_are_those_that_its_multiply_adds_count():
    config = halonet.HALONETS["h0"]
    pairs = 0
    for stage, depth in enumerate(config.depths, 1):
        size, strided = SIZES[f"h0/stage{stage}"], SIZES.get(f"h0/stage{stage}-strided")
        pairs += size.heads * visible_pairs(size) * (depth - (strided is not None))
        pairs += size.heads * visible_pairs(strided) if strided else 0
    assert pairs == count_macs(halonet.create_model("h0"), 256).visible_pairs


def test_work_is_two_products_forward_and_five_backward_and_the_tables():
    # One pixel that sees only itself: tables of one entry of one channel each.
    size = Size(rows=1, columns=1, heads=3, query_channels=2, value_channels=5, block=1, halo=0)
    scores, averages, positions = 2 * 2, 2 * 5, 2 * (1 + 1)
    forward = count_work(size, batch=7, training=False)
    assert forward == Work(21 * (scores + averages + positions), 21)
    both = count_work(size, batch=7, training=True)
    assert both == Work(21 * (4 * scores + 3 * averages + 4 * positions), 42)


def test_time_at_the_peak_is_that_of_products_and_then_of_exponentials():
    assert Peak(1e9, 1e8).milliseconds(Work(flops=10**9, exponentials=10**8)) == pytest.approx(2000)


def test_the_peak_is_measured(monkeypatch):
    monkeypatch.setattr("halonet.benchmark.peak.ATTEMPTS", 1)
    monkeypatch.setattr("halonet.benchmark.peak.SIDE_OF_PRODUCT", 64)
    peak = measure_peak(SETTINGS)
    assert peak.flops_per_second > 0
    assert peak.exponentials_per_second > 0
