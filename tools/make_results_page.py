"""Write docs/results.md from the plan of claims and the records in results/claims.

    python tools/make_results_page.py            # rewrites the page
    python tools/make_results_page.py --check    # says whether it is up to date, and changes nothing

Rows that have not run yet stand there as such.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pages import ROOT, bullets, markdown_table, wrap, write_pages

from halonet.benchmark.claims.differences import differences
from halonet.benchmark.claims.findings import Finding, Records, complete, evaluate, measure_of, rows_of
from halonet.benchmark.claims.plan import Claim, Comparison, Contrast, Plan, read_plan
from halonet.benchmark.claims.records import read_records
from halonet.benchmark.claims.remaining import minutes_of, missing_seeds
from halonet.benchmark.claims.schema import DIVERGED, PIXELS
from halonet.benchmark.claims.statistics import LEVEL, MARGIN, Estimate, deviation, mean

PAGE, RECORDS = ROOT / "docs/results.md", ROOT / "results/claims"

INTRODUCTION = f"""\
# Results

Written by `tools/make_results_page.py` from the plan in `src/halonet/benchmark/claims/plan.yaml` and the records in
`results/claims/`. They test claims of the paper on real photographs: 60,000 of 32 x 32 pixels in ten classes, of
VARIANT.
The networks are small and were trained for minutes on a processor. Nothing here tells what holds at the sizes of
ImageNet, where the paper measured.

- Test images are measured once, after the last epoch of a run. Nothing is chosen by them.
- Network, epochs, batch and learning rates were found on validation images, with seeds that no run here uses. What a
  row changes was not tuned again.
- Each row is trained with several seeds, whose number was fixed before. Tables show the mean over seeds ± the standard
  deviation; training and validation accuracy are those of the last epoch. The training images are augmented then.
- Differences are in percentage points, with a 95 % interval by Welch's method, which lets the rows vary unequally; for
  contrasts, differences of two differences, its degrees of freedom are Satterthwaite's. Intervals tell what other seeds
  would give, not other photographs.
- Verdicts judge what the paper makes us expect. A higher or a lower value is "seen" if the whole interval has that
  sign, "opposite" if the whole interval has the other one. No difference is "seen" if the whole interval is within
  {MARGIN} points of 0, "opposite" if all of it is beyond, on one side. All else is "undecided".
"""

MEASURES = {
    "top1": "test accuracy, %",
    "changed_by_shifts": "predictions changed by shifts of 1 to 8 pixels, %",
    "lost_by_shifts": "accuracy lost by shifts of 1 to 8 pixels, points",
}
EXPECTED = {"higher": "higher", "lower": "lower", "none": "no difference"}


def make_page(plan: Plan | None = None, folder: Path = RECORDS) -> str:
    """Write the page of a plan; None takes the one in the package."""
    plan = plan or read_plan()
    records = read_records(folder, plan)
    findings = evaluate(plan, records)
    is_empty = not any(records.values())
    variant = plan.variant + (", which was compressed with losses" if "JPEG" in plan.variant else "")
    parts = [INTRODUCTION.replace("VARIANT", variant), "There are no runs yet.\n" if is_empty else ""]
    parts += [f"## Bases\n\n{bases_table(plan, records)}"]
    for claim in plan.claims:
        found = [finding for finding in findings if finding.claim == claim.name]
        parts.append(claim_section(plan, claim, found, records))
    parts += [f"## How many claims\n\n{count(findings)}", shifts(plan, records)]
    parts += [f"## Diverged runs\n\n{diverged(records)}", f"## What is not here\n\n{bullets(plan.absent)}"]
    parts += [f"## Notes\n\n{bullets(plan.notes)}"] if plan.notes else []
    parts += [f"## What is left to run\n\n{left(plan, records)}", "" if is_empty else origin(records)]
    return "\n".join(part for part in parts if part)


def bases_table(plan: Plan, records: Records) -> str:
    """What every base has and reaches."""
    lines = []
    for name in plan.bases:
        runs = complete(records[name])
        minutes = [run["seconds"]["process"] / 60 for run in runs]
        lines.append(
            [
                f"`{name}`",
                parameters([records[name]]),
                f"{records[name][0]['macs'] / 1e6:.1f}" if records[name] else "-",
                of_planned(len(runs), plan.rows[name].num_seeds),
                spread([measure_of(run, "top1") for run in runs]),
                last_epochs(runs, "train_top1"),
                last_epochs(runs, "validation_top1"),
                f"{mean(minutes):.1f}" if runs else "-",
            ]
        )
    figures = ["test accuracy, %", "training accuracy, %", "validation accuracy, %", "process minutes"]
    return markdown_table(["row", "parameters, M", "MACs, M", "seeds", *figures], lines, words=1)


def claim_section(plan: Plan, claim: Claim, findings: Sequence[Finding], records: Records) -> str:
    """One claim: a table for each measure, then its contrasts."""
    parts = [f"## {claim.title}\n\n{claim.source} of the paper.\n"]
    for measure, title in MEASURES.items():
        lines = [
            comparison_cells(plan, finding, finding.subject, records)
            for finding in findings
            if isinstance(finding.subject, Comparison) and finding.subject.measure == measure
        ]
        head = ["row against base", "differs in", "expected", "the paper", "verdict", "parameters, M", "seeds"]
        figures = [title, "of the base", "training accuracy, %", "difference (95 % interval)"]
        parts += [markdown_table([*head, *figures], lines, words=5)] if lines else []
    lines = [contrast_cells(finding, finding.subject) for finding in findings if isinstance(finding.subject, Contrast)]
    head = ["contrast", "of test accuracies", "expected", "the paper", "verdict", "seeds", "value (95 % interval)"]
    parts += [markdown_table(head, lines, words=5)] if lines else []
    return "\n".join(parts)


def comparison_cells(plan: Plan, finding: Finding, subject: Comparison, records: Records) -> list[str]:
    runs = complete(records[subject.row])
    recipes = [plan.rows[name].recipe for name in rows_of(subject)]
    return [
        f"`{subject.row}` against `{subject.base}`",
        "; ".join(differences(*recipes)),
        EXPECTED[subject.effect],
        subject.paper,
        verdict_cell(finding),
        parameters([records[name] for name in rows_of(subject)]),
        seeds_cell(finding),
        *(spread(values) for values in finding.values),
        last_epochs(runs, "train_top1"),
        interval_cell(finding.estimate),
    ]


def contrast_cells(finding: Finding, subject: Contrast) -> list[str]:
    a, b, c, d = (f"`{name}`" for name in subject.rows)
    judged = [EXPECTED[subject.effect], subject.paper, verdict_cell(finding), seeds_cell(finding)]
    return [subject.name.replace("_", " "), f"({a} - {b}) - ({c} - {d})", *judged, interval_cell(finding.estimate)]


def parameters(groups: Sequence[Sequence[dict[str, Any]]]) -> str:
    """Millions of parameters of each row that has records; once, where they are all the same."""
    sizes = dict.fromkeys(f"{group[0]['parameters'] / 1e6:.3f}" if group else "-" for group in groups)
    return " against ".join(sizes)


def of_planned(number: int, planned: int) -> str:
    return f"{number}" if number == planned else f"{number} of {planned}"


def seeds_cell(finding: Finding) -> str:
    return " / ".join(map(of_planned, map(len, finding.values), finding.planned))


def verdict_cell(finding: Finding) -> str:
    """The verdict, and how many seeds it rests on, where these are fewer than planned."""
    numbers = [len(values) for values in finding.values]
    if finding.estimate is None or numbers == list(finding.planned):
        return finding.verdict
    if isinstance(finding.subject, Contrast):
        return f"{finding.verdict}, {sum(numbers)} of {sum(finding.planned)} seeds"
    (own, base), (own_planned, base_planned) = numbers, finding.planned
    words = [f"{own} of {own_planned} seeds"] if own < own_planned else []
    words += [f"{base} of {base_planned} seeds of the base"] if base < base_planned else []
    return ", ".join([finding.verdict, *words])


def spread(values: Sequence[float]) -> str:
    """Mean ± deviation, as far as there are values."""
    if len(values) < 2:
        return f"{values[0]:.2f}" if values else "-"
    return f"{mean(values):.2f} ± {deviation(values):.2f}"


def last_epochs(runs: Sequence[dict[str, Any]], key: str) -> str:
    return f"{mean([float(run['epochs'][-1][key]) for run in runs]):.2f}" if runs else "-"


def interval_cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    low, high = estimate.interval
    return f"{estimate.value:+.2f} ({low:+.2f} to {high:+.2f})"


def count(findings: Sequence[Finding]) -> str:
    """How many comparisons are judged, how many by chance, and which remain after Holm's correction."""
    judged = [finding for finding in findings if finding.estimate is not None]
    kinds = [f"{sum(f.verdict == kind for f in findings)} {kind}" for kind in ("seen", "opposite", "undecided")]
    text = f"{len(judged)} of {len(findings)} comparisons and contrasts have a verdict"
    if not judged:
        return f"{text}.\n"
    text += (
        f": {', '.join(kinds)}. Of as many 95 % intervals, {100 * LEVEL:.0f} % miss the true difference by chance: "
        f"{LEVEL * len(judged):.1f} of {len(judged)}."
    )
    held = [f"{label(finding.subject)}: {finding.verdict}" for finding in judged if finding.holds]
    text += " Of those seen or opposite, these remain after Holm's correction for all of them"
    return f"{wrap(text + (':' if held else ': none.'))}\n" + (f"\n{bullets(held)}" if held else "")


def label(subject: Comparison | Contrast) -> str:
    if isinstance(subject, Contrast):
        return f'the contrast "{subject.name.replace("_", " ")}"'
    return f"`{subject.row}` against `{subject.base}`, {MEASURES[subject.measure].partition(',')[0]}"


def shifts(plan: Plan, records: Records) -> str:
    """Accuracy and changed predictions by shift, of bases and of what shifts are compared of; nothing without runs."""
    lines, told = [], []
    compared = [each for claim in plan.claims for each in claim.comparisons if each.measure != "top1"]
    for name in dict.fromkeys([*plan.bases, *(name for each in compared for name in rows_of(each))]):
        found = [run["shifts"] for run in complete(records[name])]
        if not found:
            continue
        told += [f"{each['images']} test images, {each['direction']}, filled with {each['fill']}" for each in found]
        for kind, first in (("top1", mean([float(each["unshifted_top1"]) for each in found])), ("changed", 0.0)):
            by_shift = [mean([float(each[kind][index]) for each in found]) for index in range(len(PIXELS))]
            title = "accuracy, %" if kind == "top1" else "predictions changed, %"
            lines.append([f"`{name}`", title, *(f"{value:.1f}" for value in (first, *by_shift))])
    if not lines:
        return ""
    text = wrap(f"Means over seeds, by the shift in pixels; {' and '.join(dict.fromkeys(told))}.")
    return (
        f"## Shifted images\n\n{text}\n\n{markdown_table(['row', 'measured', '0', *map(str, PIXELS)], lines, words=2)}"
    )


def diverged(records: Records) -> str:
    runs = [run for each in records.values() for run in each if run["status"] == DIVERGED]
    lines = [f"`{run['row']}`, seed {run['seed']}: {run['reason']}" for run in runs]
    return bullets(lines) if lines else "There are none.\n"


def left(plan: Plan, records: Records) -> str:
    """The runs that are missing, and the time that they would take."""
    lines, hours, missing, unknown = [], [], 0, 0
    for name in plan.rows:
        seeds, minutes = missing_seeds(plan, name, records), minutes_of(plan, name, records)
        if not seeds:
            continue
        missing += len(seeds)
        unknown += len(seeds) if minutes is None else 0
        hours.append(len(seeds) * (minutes or 0.0) / 60)
        lines.append([f"`{name}`", ", ".join(map(str, seeds)), "-" if minutes is None else f"{hours[-1]:.1f}"])
    if not lines:
        return "Nothing.\n"
    text = f"{missing} of {len(plan.pairs())} runs are missing"
    text += f", about {sum(hours):.1f} hours of one processor core" if unknown < missing else ""
    text += f"; the time of {unknown} is not known yet." if unknown else "."
    return f"{wrap(text)}\n\n{markdown_table(['row', 'seeds', 'hours'], lines, words=2)}"


def origin(records: Records) -> str:
    """Where the figures come from."""
    runs = [run for each in records.values() for run in each]

    def every(values: Iterable[str]) -> str:
        return "; ".join(sorted(set(values)))

    made = [run["provenance"] for run in runs]
    versions = (", ".join(f"{name} {each[name]}" for name in ("python", "halonet", "torch", "timm")) for each in made)
    commits = (f"`{each['commit']}`{' and changes' * bool(each.get('modified'))}" for each in made if each["commit"])
    times = sorted(each["time"] for each in made)
    lines = [
        f"Runs: {len(runs)}, {times[0]} to {times[-1]}",
        f"Machines: {every(', '.join(run['machine'].values()) for run in runs)}",
        f"Versions: {every(versions)}",
        f"Commits: {every(commits) or 'unknown'}",
    ]
    return f"## Where the figures come from\n\n{bullets(lines)}"


if __name__ == "__main__":
    sys.exit(write_pages(__doc__, lambda: {PAGE: make_page()}))
