import dataclasses

import pytest

from halonet.benchmark.claims.remaining import minutes_of, missing_seeds
from tests.benchmark.claims.synthetic import make_diverged, make_plan, make_record


@pytest.fixture
def plan(tmp_path):
    return make_plan(tmp_path)


def test_a_run_is_missing_until_it_is_complete_or_diverged(plan):
    runs = [make_record(plan, seed=0), make_diverged(plan, seed=3)]
    assert missing_seeds(plan, "first", {"first": runs}) == [1, 2, 4]
    assert missing_seeds(plan, "third", {"third": []}) == [0, 1, 2]


def test_the_time_of_a_run_is_its_rows_or_the_plans_or_its_bases(plan):
    empty = {name: [] for name in plan.rows}
    assert [minutes_of(plan, row, empty) for row in plan.rows] == [30.0, 30.0, 30.0, 60.0]
    some = empty | {"first": [make_record(plan)]}
    assert [minutes_of(plan, row, some) for row in plan.rows] == [10.0, 10.0, 10.0, 60.0]
    some = empty | {"first": [make_diverged(plan)]}
    assert minutes_of(plan, "first", some) == 30.0, "a diverged run ended early"


def test_an_unknown_time_is_none(plan):
    rows = {name: dataclasses.replace(row, minutes=None) for name, row in plan.rows.items()}
    assert minutes_of(dataclasses.replace(plan, rows=rows), "fourth", {name: [] for name in rows}) is None
