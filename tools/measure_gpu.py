"""Measure on a GPU all that this project owes there, within some minutes, into one JSON.

    python tools/measure_gpu.py                                   # writes results/gpu.json
    python tools/measure_gpu.py --sections operator memory        # only these
    python tools/measure_gpu.py --smoke --device cpu --output /tmp/smoke.json

Sections run in order of importance. The file is rewritten after every row, so an interrupted run loses nothing; what
fails, and what the minutes did not reach, says so there. Run again, a section's new run joins its earlier ones. Each
section holds a record as `halonet benchmark` writes it: `record`, which `tools/make_benchmark_page.py` can read.
"""

import argparse
import dataclasses
import gc
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from halonet.benchmark import model, operator
from halonet.benchmark.contestants import find_peers
from halonet.benchmark.peak import Peak, measure_peak
from halonet.benchmark.race import synchronize
from halonet.benchmark.record import Row, describe_machine, describe_run, join, make_record, read_output, write_output
from halonet.benchmark.settings import Settings, find_device
from halonet.benchmark.sizes import FAMILY, SIZES, Size
from halonet.benchmark.table import format_rows
from halonet.errors import UserError, unknown_name

OUTPUT = Path("results/gpu.json")
# What the composite's windows of one call may take; a training pass holds several times as much.
BYTES_OF_WINDOWS = 6 * 2**30
USED_UP = "the minutes were used up"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured, and how large.

    Attributes:
        operator_batch: Images of one call of the operator.
        repeats: Timed runs of the operator; networks take half.
        stages: Sizes that are raced first.
        strided: Sizes with a stride.
        family: All other sizes.
        peers: Whom to race the operator with.
        compiled_peers: Whom too, in a section of its own, for their compilation takes minutes.
        networks: What is raced at `image_size`, ours first.
        inference_batch: Images of a network's step of inference.
        training_batch: Images of a network's training step.
        memory_batch: Images of the training step whose memory is measured.
        image_size: Side in pixels.
        compiled: What is raced compiled too, ours first; none leaves the section out.
        accelerated: timm's networks that are raced before and after `halonet.accelerate`; likewise.
        large: Rows of ours for ImageNet-21k, and timm's networks that the paper names beside them.
        large_batch: Images of theirs.
        large_forms: Image sizes, and what changes with them in our rows.
        growth: Images of the operator that grow.
    """

    operator_batch: int = 256
    repeats: int = 15
    stages: tuple[str, ...] = ("h1/stage1", "h1/stage2", "h1/stage3", "h1/stage4")
    strided: tuple[str, ...] = ("h1/stage2-strided", "h1/stage3-strided", "h1/stage4-strided")
    family: tuple[str, ...] = tuple(
        name
        for row in sorted(FAMILY, key=["h7", "h4", "h6", "h5", "h3", "h0", "h2", "h1"].index)
        for name in SIZES
        if name.startswith(f"{row}/") and row != "h1"
    )
    peers: tuple[str, ...] = ("composite", "timm", "natten")
    compiled_peers: tuple[str, ...] = ("flex_attention",)
    networks: tuple[str, ...] = ("h1", "timm/halonet_h1", "timm/efficientnet_b1", "timm/resnet50")
    inference_batch: int = 256
    training_batch: int = 128
    memory_batch: int = 64
    image_size: int = 256
    compiled: tuple[str, ...] = ("h1", "timm/halonet_h1", "timm/efficientnet_b1")
    accelerated: tuple[str, ...] = ("timm/halonet_h1", "timm/halonet50ts")
    large: tuple[str, ...] = (
        "h4_21k",
        "h4_21k_patch",
        "h4_21k_conv12",
        "timm/vit_large_patch16_384",
        "timm/resnetv2_152x4_bit",
    )
    large_batch: int = 32
    # Appendix F fine-tunes at larger images with larger blocks, so that the last stage stays one block.
    large_forms: tuple[tuple[int, dict[str, object]], ...] = (
        (384, {"block_size": 12, "halo_size": 2}),
        (512, {"block_size": 16, "halo_size": 1}),
    )
    growth: tuple[operator.Case, ...] = tuple(operator.scaling_cases("image", batch=1))


FULL = Plan()
# Without what takes a CPU longer than a moment: the compiler, and timm's halo networks, which want 256 px.
SMOKE = Plan(
    operator_batch=1,
    repeats=2,
    stages=("h0/stage4",),
    strided=("h0/stage4-strided",),
    family=("h5/stage4",),
    peers=("composite", "timm"),
    compiled_peers=(),
    networks=("tiny28", "timm/test_resnet"),
    inference_batch=2,
    training_batch=2,
    memory_batch=2,
    image_size=28,
    compiled=(),
    accelerated=(),
    large=("tiny28", "timm/test_resnet"),
    large_batch=1,
    large_forms=((28, {"block_size": 14, "halo_size": 2}),),
    growth=(dataclasses.replace(FULL.growth[0], batch=1),),
)


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the measurements.

    Attributes:
        name: Key in the file.
        benchmark: Which of `halonet benchmark`'s it is.
        question: As in its record.
        settings: How it is run; of networks, each row says its own batch.
        rows: Measures row by row, given the machine's rates.
    """

    name: str
    benchmark: str
    question: dict[str, Any]
    settings: Settings
    rows: Callable[[Peak], Iterator[Row]]

    def record(self) -> dict[str, Any]:
        """Begin its record."""
        record = make_record(self.benchmark, self.question, self.settings)
        if self.benchmark == "model":
            del record["settings"]["batch"]
        return record


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

    def of_operator(name: str, cases: Iterable[operator.Case], names: list[str], **question: str) -> Section:
        def rows(peak: Peak) -> Iterator[Row]:
            return operator.measure(cases, names, list(operator.TASKS), settings, peak, memory=False)

        return Section(name, "operator", {"compare": None, "scaling": None} | question, settings, rows)

    def of_networks(name: str, groups: list[model.Group], accelerate: bool = False) -> Section:
        def rows(peak: Peak) -> Iterator[Row]:
            passes = zip(("inference", "training"), (inference, training), strict=True)
            return chain.from_iterable(model.measure(groups, [task], [how], plan.image_size) for task, how in passes)

        question = {"image_size": plan.image_size, "accelerate": accelerate, "compare": None}
        return Section(name, "model", question, inference, rows)

    def of_memory(peak: Peak) -> Iterator[Row]:
        yield model.measure_memory(list(plan.networks[:2]), "training", memory, plan.image_size)

    def of_large(peak: Peak) -> Iterator[Row]:
        for image_size, changes in plan.large_forms:
            yield from model.measure([large_group(plan.large, changes)], ["inference"], [large], image_size)

    def cases(names: Iterable[str]) -> list[operator.Case]:
        return [operator.Case(name, SIZES[name], batch_of(SIZES[name], plan.operator_batch)) for name in names]

    def groups(names: Iterable[str], accelerate: bool = False, compiled: bool = False) -> list[model.Group]:
        return model.make_groups(list(names), accelerate=accelerate, compare=None, compiled=compiled)

    compared = {what: names for what, (names, _) in operator.COMPARISONS.items()}
    sections = [
        of_operator("operator", cases(plan.stages), peers),
        of_networks("networks", groups(plan.networks)),
        Section("memory", "memory", {"image_size": plan.image_size}, memory, of_memory),
    ]
    if plan.compiled_peers:
        raced = find_peers(list(plan.compiled_peers), device)
        sections.append(of_operator("operator_beside_compiled", cases(plan.stages), raced))
    if plan.compiled:
        raced = [without_bounds(group) for group in groups(plan.compiled, compiled=True)]
        sections.append(of_networks("networks_compiled", raced))
    sections.append(of_operator("operator_strided_sizes", cases(plan.strided), peers))
    if plan.accelerated:
        sections.append(of_networks("accelerate", groups(plan.accelerated, accelerate=True), accelerate=True))
    question = {"image_size": None, "accelerate": False, "compare": None}  # each row says its own size
    sections += [
        Section("networks_of_21k", "model", question, large, of_large),
        of_operator("strided_or_pooled", cases(plan.strided), compared["strided"], compare="strided"),
        of_operator("relaxed_or_centered", cases(plan.stages), compared["centered"], compare="centered"),
        of_operator("growth_with_the_image", plan.growth, ours, scaling="image"),
        of_operator("operator_of_h0_to_h7", cases(plan.family), ours),
    ]
    return sections


def batch_of(size: Size, most: int) -> int:
    """Halve the batch until the composite's windows of all blocks fit."""
    geometry = size.geometry
    keys = geometry.rows.num_blocks * geometry.columns.num_blocks * size.window**2 * size.heads
    # Keys carry the one-hot of their row and of their column; keys and values are of equal width then.
    width = max(size.query_channels + 2 * size.window, size.value_channels)
    batch = most
    while batch > 1 and batch * keys * 2 * width * torch.bfloat16.itemsize > BYTES_OF_WINDOWS:
        batch //= 2
    return batch


def without_bounds(group: model.Group) -> model.Group:
    """Leave out the networks without attention, which another section has."""
    return dataclasses.replace(group, forms=[form for form in group.forms if not form.without_attention])


def large_group(names: Iterable[str], changes: dict[str, object]) -> model.Group:
    """Networks at a larger image, ours with other blocks."""
    (group,) = model.make_groups(list(names), accelerate=False, compare=None, compiled=False)
    forms = [
        form if form.model.startswith(model.TIMM) else dataclasses.replace(form, changes=tuple(changes.items()))
        for form in without_bounds(group).forms
    ]
    described = ", ".join(f"{name.partition('_')[0]} {value}" for name, value in changes.items())
    return dataclasses.replace(group, name=f"networks with {described}", forms=forms)


class OutOfTimeError(Exception):
    """No row is to be begun any more."""


@dataclasses.dataclass
class Measurements:
    """The file, and what a run adds to it.

    Attributes:
        path: The file.
        command: Words of the command line after the tool's name.
        document: What is written.
    """

    path: Path
    command: list[str]
    document: dict[str, Any]

    def check(self, sections: Iterable[Section]) -> None:
        """Refuse a file whose sections are of another machine or question, before anything is measured."""
        for section in sections:
            if section.name in self._sections():
                join(section.record(), self._sections()[section.name].get("record"), self.path)

    def begin(self, peak: Peak) -> None:
        """Write down where everything is measured, and how fast that could be."""
        self.document |= {"environment": describe_machine() | self._provenance(), "peak": vars(peak)}
        self.write()

    def measure(self, section: Section, peak: Peak, deadline: float) -> str:
        """Run a section until it ends, fails or the clock says so; write the file after each row.

        Returns:
            Its outcome, which the file says too.
        """
        found = self._sections().get(section.name, {}).get("record", section.record())
        run = {"provenance": self._provenance(), "repeats": section.settings.repeats, "peak": vars(peak), "rows": []}
        entry = {"outcome": "interrupted", "seconds": 0.0, "record": found}
        self._sections()[section.name] = entry
        start, rows = time.monotonic(), []
        try:
            for row in self._until(deadline, section.rows(peak)):
                rows.append(row)
                print(f"measured: {row.case}, {row.task}", file=sys.stderr, flush=True)
                run["rows"] = [dataclasses.asdict(each) for each in rows]
                entry["record"] = found | {"runs": [*found["runs"], run]}
                entry["seconds"] = round(time.monotonic() - start, 1)
                self.write()
                synchronize(section.settings.device)  # a kernel that went wrong is known here, if not before
            entry["outcome"] = "complete"
        except OutOfTimeError:
            entry["outcome"] = f"cut after {len(rows)} rows: {USED_UP}" if rows else f"skipped: {USED_UP}"
        except Exception as error:  # whatever it is, it is recorded, and must not cost the other sections
            entry["outcome"] = f"failed: {type(error).__name__}: {error}"
        entry["seconds"] = round(time.monotonic() - start, 1)
        self.write()
        if rows:
            print(format_rows(rows))
        return entry["outcome"]

    def _until(self, deadline: float, rows: Iterator[Row]) -> Iterator[Row]:
        while True:
            if time.monotonic() >= deadline:
                raise OutOfTimeError
            row = next(rows, None)
            if row is None:
                return
            yield row

    def _provenance(self) -> dict[str, Any]:
        return describe_run(self.command, program=("python", "tools/measure_gpu.py"))

    def _sections(self) -> dict[str, Any]:
        return self.document.setdefault("sections", {})

    def write(self) -> None:
        """Write the file."""
        write_output(self.document, self.path)


def is_lost(device: str) -> bool:
    """Whether the device answers no more: after an illegal access, a process never gets it back."""
    try:
        torch.zeros(1, device=device).item()
    except RuntimeError:
        return True
    return False


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="begin no row later than so many after the start")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FILE", help="where to; earlier runs stay")
    parser.add_argument("--sections", nargs="+", metavar="NAME", help="which (default: all, in order of importance)")
    parser.add_argument("--device", default="auto", help="cuda, ...; cpu only with --smoke")
    parser.add_argument("--dtype", default="bfloat16", help="of the operator, and of networks by autocast")
    parser.add_argument("--smoke", action="store_true", help="try everything at tiny sizes; the figures say nothing")
    return parser


def measure_all(options: argparse.Namespace, words: list[str]) -> list[str]:
    """Measure what is asked for.

    Returns:
        Sections that remain because the device was lost on the way.

    Raises:
        UserError: If an option does not fit, or the file is of something else.
    """
    deadline = time.monotonic() + 60 * options.minutes
    device = find_device(options.device)
    if device == "cpu" and not options.smoke:
        raise UserError(f"--device {options.device} is a CPU here, and the sizes are a GPU's; add --smoke to try them")
    if options.minutes < 0:
        raise UserError(f"--minutes is {options.minutes}; it must be at least 0")
    every = {
        section.name: section for section in make_sections(SMOKE if options.smoke else FULL, device, options.dtype)
    }
    for name in options.sections or ():
        if name not in every:
            raise UserError(unknown_name("section", name, every))
    chosen = [section for name, section in every.items() if name in (options.sections or every)]
    measurements = Measurements(options.output, words, read_output(options.output) or {})
    measurements.check(chosen)
    peak = measure_peak(chosen[0].settings, side=64 if options.smoke else None)
    print(peak, flush=True)
    measurements.begin(peak)
    for index, section in enumerate(chosen):
        outcome = measurements.measure(section, peak, deadline)
        print(f"{section.name}: {outcome}\n", flush=True)
        gc.collect()
        torch.compiler.reset()
        if is_lost(device):
            return [each.name for each in chosen[index + 1 :]]
        if device != "cpu":
            torch.accelerator.empty_cache()
    return []


def main(words: list[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else words
    options = make_parser().parse_args(words)
    start = time.monotonic()
    try:
        remaining = measure_all(options, words)
    except UserError as error:
        print(f"measure_gpu: {error}", file=sys.stderr)
        return 2
    if remaining:
        left = options.minutes - (time.monotonic() - start) / 60
        print(f"the device is lost to this process; another one goes on with {', '.join(remaining)}", flush=True)
        # The last of an option given twice counts.
        again = [*words, "--minutes", f"{max(left, 0):.2f}", "--sections", *remaining]
        os.execv(sys.executable, [sys.executable, __file__, *again])
    print(f"written to {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
