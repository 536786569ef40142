"""`halonet benchmark claims`: train the missing runs of the plan, one after another, on one thread."""

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from halonet.benchmark.claims.execution import check_variant, describe_data, execute
from halonet.benchmark.claims.plan import Plan
from halonet.benchmark.claims.records import read_records, record_path, write_record
from halonet.benchmark.claims.remaining import minutes_of, missing_seeds
from halonet.benchmark.claims.schema import DIVERGED
from halonet.benchmark.record import describe_run
from halonet.engine.files import check_output_folder
from halonet.errors import UserError, unknown_name

# A run begins only if its estimate times this fits into the remaining time: machines are not equally busy.
MARGIN = 1.15
# Minutes assumed for a row without an estimate.
UNKNOWN = 18.0


def run_claims(
    plan: Plan,
    root: Path,
    folder: Path,
    *,
    minutes: float | None = None,
    row: str | None = None,
    shard: tuple[int, int] = (1, 1),
    report: Callable[[str], None] = print,
) -> list[Path]:
    """Train what has no record yet: bases first, then claim by claim, all seeds of a row in turn.

    Each record is written when its run has ended, so that a process killed at any moment loses one run at most.

    Args:
        plan: See `read_plan`.
        root: The folder that holds CIFAR-10.
        folder: The folder of the records; made if it does not exist.
        minutes: Start no run that would end after this many minutes; None continues to the end of the plan.
        row: Train only this one.
        shard: (i, n) takes every n-th run from the i-th on, so that n processes share the work.
        report: Takes a line about each run.

    Raises:
        UserError: The row is unknown, or data or records cannot be read or written, or are of something else.
        Interrupted: A signal ended it; the run in progress is lost, and its folder is removed.
    """
    if row is not None and row not in plan.rows:
        raise UserError(unknown_name("row of the plan", row, plan.rows))
    check_output_folder(folder)
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    records = read_records(folder, plan)
    pairs = [pair for pair in plan.pairs()[shard[0] - 1 :: shard[1]] if row in (None, pair[0].name)]
    missing = [(each, seed) for each, seed in pairs if seed in missing_seeds(plan, each.name, records)]
    report(f"{len(pairs) - len(missing)} of {len(pairs)} runs have a record")
    if not missing:
        return []
    check_variant(describe_data(missing[0][0].recipe, root)["variant"], plan.variant, root)
    code = describe_code()
    written: list[Path] = []
    slowdown = 1.0  # what other processes leave of the processor
    not_begun = 0
    for each, seed in missing:
        estimate = slowdown * (minutes_of(plan, each.name, records) or UNKNOWN)
        if deadline is not None and time.monotonic() + 60 * MARGIN * estimate > deadline:
            not_begun += 1
            continue
        if record_path(folder, each.name, seed).exists():  # another process was faster
            continue
        _require_same_code(code)
        record = execute(each, seed, root, code)
        written.append(write_record(folder, record))
        records[each.name].append(record)
        slowdown = max(1.0, record["seconds"]["wall"] / record["seconds"]["process"])
        report(f"{_describe(record)}; written to {written[-1]}")
    if not_begun:
        report(f"{not_begun} runs were not begun: they would not end in time")
    return written


def parse_shard(text: str) -> tuple[int, int]:
    """Read "I/N"; raises UserError unless 1 <= I <= N."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    index, count = (int(part) for part in match.groups()) if match else (0, 0)
    if not 1 <= index <= count:
        raise UserError(f"--shard is {text}, but must be I/N with I from 1 to N, such as 1/2")
    return index, count


def run_quietly() -> None:
    """Use one thread at the lowest priority."""
    torch.set_num_threads(1)
    if hasattr(os, "nice"):
        os.nice(19)


def describe_code() -> dict[str, Any]:
    """Say which `commit` this process runs, and whether its code was `modified`."""
    run = describe_run([])
    return {"commit": run.get("commit"), "modified": run.get("modified", False)}


def require_committed_code() -> None:
    """Refuse to run with code that no commit names."""
    code = describe_code()
    if code["commit"] is None or code["modified"]:
        found = "the code was changed since its last commit" if code["commit"] else "the code is in no git checkout"
        raise UserError(
            f"{found}, and a record names the commit that made it: commit the changes, or run from a separate clone"
        )


def _require_same_code(code: dict[str, Any]) -> None:
    if describe_code() != code:
        raise UserError(
            f"the checkout changed while it ran (from {code} to {describe_code()}), and a record names the commit that "
            "made it: start again, in a separate clone"
        )


def _describe(record: dict[str, Any]) -> str:
    head = f"{record['row']}, seed {record['seed']}: "
    tail = f"{record['seconds']['process'] / 60:.1f} minutes of processor time"
    if record["status"] == DIVERGED:
        return f"{head}diverged ({record['reason']}), {tail}"
    last = record["epochs"][-1]
    return (
        f"{head}test {record['test']['top1']:.2f} %, validation {last['validation_top1']:.2f} %, "
        f"training {last['train_top1']:.2f} %, {tail}"
    )
