"""Which runs of a plan are missing, and how long they would take."""

from halonet.benchmark.claims.findings import Records, complete
from halonet.benchmark.claims.plan import Plan
from halonet.benchmark.claims.statistics import mean


def missing_seeds(plan: Plan, name: str, records: Records) -> list[int]:
    """List the seeds of a row that have no record; a diverged run has one."""
    found = {record["seed"] for record in records[name]}
    return [seed for seed in range(plan.rows[name].num_seeds) if seed not in found]


def minutes_of(plan: Plan, name: str, records: Records) -> float | None:
    """Estimate the process time of a run: the mean of the row's runs, else the plan's value, else that of its base."""
    row = plan.rows[name]
    if runs := complete(records[name]):
        return mean([run["seconds"]["process"] / 60 for run in runs])
    if row.minutes is not None or row.base is None:
        return row.minutes
    return minutes_of(plan, row.base, records)
