"""Everything that `halonet benchmark` measures, at sizes for a GPU, within a few minutes, in one file.

Sections run in order of importance. The file is rewritten after every row, so an interrupted run loses nothing; each
run of a section states its outcome. Running it again adds a run to each section. The file is
`{"records": {SECTION: RECORD}}`.
"""

import dataclasses
import gc
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from halonet.benchmark import forms, model, operator
from halonet.benchmark.networks import TIMM
from halonet.benchmark.peak import Peak, measure_peak
from halonet.benchmark.peers import find_peers
from halonet.benchmark.record import (
    Row,
    describe_run,
    join,
    make_record,
    not_a_record,
    read_output,
    write_output,
)
from halonet.benchmark.settings import Settings, check_names, find_device
from halonet.benchmark.sizes import SIZES, Size
from halonet.benchmark.suite_plan import FULL, SMOKE, Plan
from halonet.benchmark.table import format_rows
from halonet.benchmark.timing import synchronize
from halonet.errors import UserError

# Memory for the windows of one call of `composite`; a training pass holds several times as much.
BYTES_OF_WINDOWS = 6 * 2**30
OUT_OF_TIME = "the minutes were used up"


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the suite; `rows` measures row by row, given the machine's rates."""

    name: str
    record: dict[str, Any]
    settings: Settings
    rows: Callable[[Peak], Iterator[Row]]


def make_sections(plan: Plan, device: str, dtype: str) -> list[Section]:
    """List all sections, the most important first."""
    settings = Settings(
        batch=plan.operator_batch, repeats=plan.repeats, threads=torch.get_num_threads(), dtype=dtype, device=device
    )
    fewer = dataclasses.replace(settings, repeats=max(plan.repeats // 2, 2))
    inference, training, large, memory = (
        dataclasses.replace(fewer, batch=batch)
        for batch in (plan.inference_batch, plan.training_batch, plan.large_batch, plan.memory_batch)
    )
    peers, ours = find_peers(list(plan.peers), device), find_peers(["composite"], device)

    def operator_section(name: str, cases: Iterable[operator.Case], names: list[str], **question: str) -> Section:
        def rows(peak: Peak) -> Iterator[Row]:
            return operator.measure(cases, names, list(operator.TASKS), settings, peak, memory=False)

        return Section(name, operator.make_record(settings, **question), settings, rows)

    def network_section(name: str, groups: list[forms.Group], accelerate: bool = False) -> Section:
        def rows(peak: Peak) -> Iterator[Row]:
            passes = zip(("inference", "training"), (inference, training), strict=True)
            return chain.from_iterable(model.measure(groups, [task], [each], plan.image_size) for task, each in passes)

        return Section(name, model.make_record(inference, plan.image_size, accelerate=accelerate), inference, rows)

    def memory_rows(peak: Peak) -> Iterator[Row]:
        return model.measure_memory(list(plan.networks[:2]), "training", memory, plan.image_size)

    def large_rows(peak: Peak) -> Iterator[Row]:
        for image_size, changes in plan.large_forms:
            yield from model.measure([large_group(plan.large, changes)], ["inference"], [large], image_size)

    def cases(names: Iterable[str]) -> list[operator.Case]:
        return [operator.Case(name, SIZES[name], largest_batch(SIZES[name], plan.operator_batch)) for name in names]

    def groups(names: Iterable[str], accelerate: bool = False, compiled: bool = False) -> list[forms.Group]:
        return forms.make_groups(list(names), accelerate=accelerate, compare=None, compiled=compiled)

    compared = {question: names for question, (names, _) in operator.COMPARISONS.items()}
    sections = [
        operator_section("operator", cases(plan.stages), peers),
        network_section("networks", groups(plan.networks)),
        Section("memory", make_record("memory", {"image_size": plan.image_size}, memory), memory, memory_rows),
    ]
    if plan.compiled_peers:
        names = find_peers(list(plan.compiled_peers), device)
        sections.append(operator_section("operator_beside_compiled", cases(plan.stages), names))
    if plan.compiled:
        compiled = [without_bounds(group) for group in groups(plan.compiled, compiled=True)]
        sections.append(network_section("networks_compiled", compiled))
    sections.append(operator_section("operator_strided_sizes", cases(plan.strided), peers))
    if plan.accelerated:
        sections.append(network_section("accelerate", groups(plan.accelerated, accelerate=True), accelerate=True))
    return [
        *sections,
        Section("networks_of_21k", model.make_record(large, None), large, large_rows),  # a row says its image size
        operator_section("strided_or_pooled", cases(plan.strided), compared["strided"], compare="strided"),
        operator_section("relaxed_or_centered", cases(plan.stages), compared["centered"], compare="centered"),
        operator_section("growth_with_the_image", plan.growth, ours, scaling="image"),
        operator_section("operator_of_h0_to_h7", cases(plan.family), ours),
    ]


def largest_batch(size: Size, most: int) -> int:
    """Halve the batch until the windows of all blocks, as `composite` gathers them, fit in `BYTES_OF_WINDOWS`."""
    geometry = size.geometry
    keys = geometry.rows.num_blocks * geometry.columns.num_blocks * size.window**2 * size.heads
    # Keys carry one-hot vectors of their row and column; keys and values have equal width then.
    width = max(size.query_channels + 2 * size.window, size.value_channels)
    batch = most
    while batch > 1 and batch * keys * 2 * width * torch.bfloat16.itemsize > BYTES_OF_WINDOWS:
        batch //= 2
    return batch


def without_bounds(group: forms.Group) -> forms.Group:
    """Leave out the networks without attention."""
    return dataclasses.replace(group, forms=[form for form in group.forms if not form.without_attention])


def large_group(names: Iterable[str], changes: dict[str, object]) -> forms.Group:
    """Group networks for a larger image, with changes to ours."""
    (group,) = forms.make_groups(list(names), accelerate=False, compare=None, compiled=False)
    changed = [
        form if form.model.startswith(TIMM) else dataclasses.replace(form, changes=tuple(changes.items()))
        for form in without_bounds(group).forms
    ]
    described = ", ".join(f"{name.partition('_')[0]} {value}" for name, value in changes.items())
    return dataclasses.replace(group, name=f"networks with {described}", forms=changed)


class OutOfTimeError(Exception):
    """Time is up: no further row may begin."""


def until(deadline: float, rows: Iterator[Row]) -> Iterator[Row]:
    """Yield rows; raise before one would begin after the deadline."""
    while time.monotonic() < deadline:
        row = next(rows, None)
        if row is None:
            return
        yield row
    raise OutOfTimeError


@dataclasses.dataclass
class Suite:
    """The records of a file, to which a run of the suite adds."""

    path: Path
    argv: list[str]
    records: dict[str, dict[str, Any]]

    @classmethod
    def open(cls, path: Path, argv: list[str], sections: Iterable[Section]) -> "Suite":
        """Read the file, and refuse one whose records are of another machine or question."""
        found = read_output(path)
        records = {} if found is None else found.get("records")
        if not isinstance(records, dict):
            raise UserError(not_a_record(path))
        for section in sections:
            if section.name in records:
                join(section.record, records[section.name], path)
        return cls(path, argv, records)

    def measure(self, section: Section, peak: Peak, deadline: float) -> str:
        """Measure a section, writing the file after each row, and return the outcome."""
        record = self.records.setdefault(section.name, section.record)
        provenance, start, rows = describe_run(self.argv), time.monotonic(), []
        earlier = record["runs"]

        def write(outcome: str) -> str:
            run = {"provenance": provenance, "repeats": section.settings.repeats, "peak": vars(peak)}
            run |= {"outcome": outcome, "seconds": round(time.monotonic() - start, 1)}
            run["rows"] = [dataclasses.asdict(row) for row in rows]
            record["runs"] = [*earlier, run]
            write_output({"records": self.records}, self.path)
            return outcome

        write("interrupted")
        try:
            for row in until(deadline, section.rows(peak)):
                rows.append(row)
                print(f"measured: {row.case}, {row.task}", file=sys.stderr, flush=True)
                write("interrupted")
                synchronize(section.settings.device)  # reports a kernel that failed
            outcome = write("complete")
        except OutOfTimeError:
            outcome = write(f"cut after {len(rows)} rows: {OUT_OF_TIME}" if rows else f"skipped: {OUT_OF_TIME}")
        except Exception as error:  # recorded, so that the other sections still run
            outcome = write(f"failed: {type(error).__name__}: {error}")
        if rows:
            print(format_rows(rows))
        return outcome


def is_lost(device: str) -> bool:
    """Whether the device is lost to this process, as after an illegal access."""
    try:
        torch.zeros(1, device=device).item()
    except RuntimeError:
        return True
    return False


def measure_all(
    path: Path, argv: list[str], *, minutes: float, device: str, dtype: str, names: list[str] | None, smoke: bool
) -> list[str]:
    """Measure the named sections (None: all) into a file; begin no row after so many minutes.

    Returns the sections that remain because the device was lost; raises a `UserError` for a wrong argument or file.
    """
    deadline = time.monotonic() + 60 * minutes
    asked, device = device, find_device(device)
    if device == "cpu" and not smoke:
        raise UserError(f"--device {asked} is a CPU here, but the sizes are for a GPU; add --smoke to try them")
    if not 0 <= minutes < float("inf"):
        raise UserError(f"--minutes is {minutes}; it must be a finite number of at least 0")
    every = {section.name: section for section in make_sections(SMOKE if smoke else FULL, device, dtype)}
    asked_for = check_names("section", names, every)
    chosen = [section for name, section in every.items() if name in asked_for]
    suite = Suite.open(path, argv, chosen)
    peak = measure_peak(chosen[0].settings, side=64 if smoke else None)
    print(peak, flush=True)
    for index, section in enumerate(chosen):
        print(f"{section.name}: {suite.measure(section, peak, deadline)}\n", flush=True)
        gc.collect()
        torch.compiler.reset()
        if is_lost(device):
            return [each.name for each in chosen[index + 1 :]]
        if device != "cpu":
            torch.accelerator.empty_cache()
    return []
