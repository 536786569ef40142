import pytest

from halonet.benchmark.claims.findings import Finding, evaluate, measure_of
from halonet.benchmark.claims.plan import Plan
from tests.benchmark.claims.synthetic import make_diverged, make_plan, make_record


@pytest.fixture
def plan(tmp_path):
    return make_plan(tmp_path)


def judge(plan: Plan, step: float = 0.01, **centers: float) -> dict[str, Finding]:
    """Five runs of the first row, `step` points apart, around its center; three close ones of each other."""
    records = {name: [] for name in plan.rows}
    for name, center in centers.items():
        seeds, apart = (5, step) if name == "first" else (3, 0.01)
        runs = [make_record(plan, name, seed, center + apart * (seed - (seeds - 1) / 2)) for seed in range(seeds)]
        records[name] = runs
    names = ["third", "fourth", "first", "shifts", "gap"]  # in the plan's order
    return dict(zip(names, evaluate(plan, records), strict=True))


def test_measures_are_in_percent(plan):
    record = make_record(plan, top1=61.5)
    assert measure_of(record, "top1") == 61.5
    assert measure_of(record, "changed_by_shifts") == pytest.approx((1 + 2 + 3 + 4 + 5 + 6 + 7 + 8) / 8)


def test_clear_differences_and_clear_equality_hold(plan):
    found = judge(plan, first=60.0, second=50.0, third=40.0, fourth=60.0)
    assert {name: (finding.verdict, finding.holds) for name, finding in found.items()} == {
        "third": ("seen", True),
        "fourth": ("seen", True),
        "first": ("seen", True),
        "shifts": ("undecided", False),  # the same in all records
        "gap": ("seen", True),
    }
    assert found["gap"].estimate is not None
    assert found["gap"].estimate.value == pytest.approx((60 - 50) - (40 - 60))


def test_a_verdict_likely_by_chance_does_not_hold(plan):
    found = judge(plan, step=0.22, first=60.0, second=59.9, third=60.1, fourth=60.0)["fourth"]
    assert found.verdict == "seen"
    assert found.estimate is not None
    assert 0.05 / 5 < found.estimate.p_value_of("none") < 0.05
    assert not found.holds


def test_an_undecided_finding_never_holds(plan):
    # Two one-sided tests at 5 % are an interval of 90 %: one of 95 % may reach beyond the margin.
    found = judge(plan, step=0.295, first=60.0, fourth=60.0)["fourth"]
    assert found.estimate is not None
    assert found.estimate.p_value_of("none") < 0.05
    assert (found.verdict, found.holds) == ("undecided", False)


def test_rows_with_fewer_than_two_complete_runs_are_not_judged(plan):
    records = {name: [] for name in plan.rows}
    records["first"] = [make_record(plan, seed=seed, top1=60.0 + seed) for seed in range(2)]
    records["third"] = [make_record(plan, "third"), make_diverged(plan, "third", 1)]
    found = evaluate(plan, records)
    assert {finding.verdict for finding in found} == {"not run"}
    assert found[0].values == ((60.0,), (60.0, 61.0))
    assert found[0].planned == (3, 5)
