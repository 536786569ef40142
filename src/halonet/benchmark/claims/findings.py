"""The result of each comparison in the plan."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from halonet.benchmark.claims.plan import Comparison, Contrast, Plan
from halonet.benchmark.claims.schema import COMPLETE
from halonet.benchmark.claims.statistics import UNDECIDED, Estimate, contrast, difference, holm, mean, verdict

NOT_RUN = "not run"
MIN_VALUES = 2

Records = Mapping[str, Sequence[dict[str, Any]]]
"""As `read_records` returns them."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of a comparison or a contrast.

    Attributes:
        values: In percent, by seed, of each of its two or four rows.
        planned: Number of seeds that the plan has for each row.
        estimate: None where a row has fewer than two values.
        verdict: "seen", "opposite", "undecided", or "not run" where there is no estimate.
        holds: Whether a "seen" or "opposite" remains after Holm's correction for all that have an estimate.
    """

    claim: str
    subject: Comparison | Contrast
    values: tuple[tuple[float, ...], ...]
    planned: tuple[int, ...]
    estimate: Estimate | None
    verdict: str
    holds: bool = False


def rows_of(subject: Comparison | Contrast) -> tuple[str, ...]:
    """Name the two or four rows of a comparison or a contrast."""
    return subject.rows if isinstance(subject, Contrast) else (subject.row, subject.base)


def complete(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drop the records of diverged runs."""
    return [record for record in records if record["status"] == COMPLETE]


def measure_of(record: dict[str, Any], measure: str) -> float:
    """Take a measure, one of `plan.Measure`, from a complete record, in percent."""
    shifts = record["shifts"]
    return {
        "top1": float(record["test"]["top1"]),
        "changed_by_shifts": mean(shifts["changed"]),
        "lost_by_shifts": shifts["unshifted_top1"] - mean(shifts["top1"]),
    }[measure]


def evaluate(plan: Plan, records: Records) -> list[Finding]:
    """Judge all comparisons and contrasts of a plan, in its order."""
    found = [
        _judge(plan, claim.name, subject, records)
        for claim in plan.claims
        for subject in (*claim.comparisons, *claim.contrasts)
    ]
    estimates = [(finding, finding.estimate) for finding in found if finding.estimate is not None]
    holds = holm([estimate.p_value_of(finding.subject.effect) for finding, estimate in estimates])
    held = {id(finding) for (finding, _), each in zip(estimates, holds, strict=True) if each}
    return [
        dataclasses.replace(finding, holds=id(finding) in held and finding.verdict != UNDECIDED) for finding in found
    ]


def _judge(plan: Plan, claim: str, subject: Comparison | Contrast, records: Records) -> Finding:
    measure = "top1" if isinstance(subject, Contrast) else subject.measure
    rows = rows_of(subject)
    values = tuple(tuple(measure_of(record, measure) for record in complete(records[row])) for row in rows)
    planned = tuple(plan.rows[row].num_seeds for row in rows)
    if min(map(len, values)) < MIN_VALUES:
        return Finding(claim, subject, values, planned, None, NOT_RUN)
    estimate = contrast(*values) if isinstance(subject, Contrast) else difference(*values)
    return Finding(claim, subject, values, planned, estimate, verdict(estimate.interval, subject.effect))
