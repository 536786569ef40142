"""`halonet benchmark` and its commands."""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from halonet_cli.measuring import add_settings, check_file_of, check_outputs, make_settings
from halonet_cli.parser import UsageError, add_command, add_commands
from halonet_cli.triton import add_triton


def add(commands: Any) -> None:
    """Add the benchmarks."""
    parser = add_command(commands, "benchmark", None, "time and memory of the operator and of whole networks")
    kinds = add_commands(parser, "benchmark", "WHAT")

    suite = add_command(kinds, "all", run_all, "measure everything on a GPU within some minutes, into one file")
    suite.add_argument("--minutes", type=float, default=6.0, help="begin no measurement later than this")
    suite.add_argument("--sections", nargs="+", metavar="NAME", help="which (default: all, in order of importance)")
    suite.add_argument("--device", default="auto", help="cuda, ...; cpu only with --smoke")
    suite.add_argument("--dtype", default="bfloat16", help="of the operator, and of networks by autocast")
    suite.add_argument("--smoke", action="store_true", help="try everything at tiny sizes; the figures say nothing")
    suite.add_argument("--output", type=Path, default=Path("benchmark.json"), metavar="FILE", help="add to this file")

    operator = add_command(kinds, "operator", run_operator, "time the bare operator beside its peers")
    operator.add_argument(
        "--sizes", nargs="+", metavar="NAME", help="e.g. h5/stage2-strided, h7, awkward (default: h1's stages)"
    )
    operator.add_argument("--passes", nargs="+", metavar="PASS", help="forward, training (default: both)")
    operator.add_argument("--peers", nargs="+", metavar="NAME", help="what to time beside ours (default: all)")
    operator.add_argument("--compare", metavar="WHAT", help="time variants of ours: centered, strided")
    operator.add_argument("--scaling", metavar="WHAT", help="how time grows with the image, or with the window")
    operator.add_argument("--skip-memory", action="store_true", help="measure no peak memory")
    add_settings(operator, batch=4, repeats=15, dtype="float32", plot=True)

    model = add_command(kinds, "model", run_model, "time whole networks")
    model.add_argument("--models", nargs="+", metavar="NAME", help="rows of `halonet info`, and timm/NAME")
    model.add_argument("--passes", nargs="+", metavar="PASS", help="inference, training (default: both)")
    model.add_argument("--accelerate", action="store_true", help="timm's halo networks before and after accelerate")
    model.add_argument("--compare", metavar="WHAT", help="time variants of our rows: centered, strided")
    model.add_argument("--compile", action="store_true", help="time the halo networks compiled too")
    model.add_argument("--image-size", type=int, help="in pixels (default: 256; with --accelerate the network's own)")
    add_settings(model, batch=[1, 4], repeats=7, dtype="float32", plot=True)

    memory = add_command(kinds, "memory", run_memory, "measure the peak memory of one step")
    memory.add_argument("--models", nargs="+", metavar="NAME", help="default: h1 timm/halonet_h1")
    memory.add_argument("--pass", dest="task", default="training", help="inference or training")
    memory.add_argument("--image-size", type=int, default=256, help="side of the images in pixels")
    add_settings(memory, batch=16, repeats=None, dtype="float32")

    detector = add_command(kinds, "detector", run_detector, "time the detectors of the paper's Table 5")
    detector.add_argument("--backbones", nargs="+", metavar="NAME", help="default: those of Table 5")
    add_settings(detector, batch=1, repeats=5)

    precision = add_command(kinds, "average-precision", run_average_precision, "time the evaluation of detections")
    precision.add_argument("--images", type=int, default=5000, help="default: as many as COCO's validation set has")
    precision.add_argument("--detections", type=int, default=100, help="of an image")
    precision.add_argument("--both", action="store_true", help="time pycocotools too, and compare")
    precision.add_argument("--repeats", type=int, default=2, help="timed runs of each")
    precision.add_argument("--output", type=Path, metavar="FILE", help="write the record, or append to it")

    add_triton(kinds)

    claims = add_command(kinds, "claims", run_claims, "train the next missing runs of the paper's claims on CIFAR-10")
    claims.add_argument("--data", type=Path, required=True, metavar="DIR", help="the folder that holds CIFAR-10")
    claims.add_argument("--minutes", type=float, help="begin no run that would not end in time (default: go on)")
    claims.add_argument("--row", metavar="ROW", help="train only this row of the plan")
    claims.add_argument("--shard", default="1/1", metavar="I/N", help="every N-th run from the I-th on")
    claims.add_argument(
        "--output", type=Path, default=Path("results/claims"), metavar="DIR", help="where the records are"
    )


def run_all(options: argparse.Namespace) -> None:
    """Measure all sections; where the device is lost, another process measures the rest."""
    from halonet.benchmark.suite import measure_all

    start = time.monotonic()
    remaining = measure_all(
        options.output,
        options.words,
        minutes=options.minutes,
        device=options.device,
        dtype=options.dtype,
        names=options.sections,
        smoke=options.smoke,
    )
    if remaining:
        left = options.minutes - (time.monotonic() - start) / 60
        print(f"the device is lost to this process; another one goes on with {', '.join(remaining)}", flush=True)
        # Of an option that is given twice, the last counts.
        argv = [*options.words, "--minutes", f"{max(left, 0):.2f}", "--sections", *remaining]
        os.execv(sys.executable, [sys.executable, "-m", "halonet_cli", *argv])
    print(f"written to {options.output}")


def run_operator(options: argparse.Namespace) -> None:
    """Time the operator, print the table, write what was asked for."""
    from halonet.benchmark import operator
    from halonet.benchmark.peak import measure_peak
    from halonet.benchmark.peers import find_peers
    from halonet.benchmark.sizes import find_sizes
    from halonet.errors import UserError, unknown_name

    check_outputs(options)
    settings = make_settings(options, options.batch)
    tasks = operator.check_tasks(options.passes, operator.TASKS)
    if options.compare is not None and options.compare not in operator.COMPARISONS:
        raise UserError(unknown_name("comparison", options.compare, operator.COMPARISONS))
    _refuse_together(options, "compare", "scaling")
    _refuse_together(options, "compare", "peers")
    _refuse_together(options, "scaling", "sizes")
    if options.scaling is not None:
        cases = operator.scaling_cases(options.scaling, settings.batch)
        names = find_peers(operator.SCALED if options.peers is None else options.peers, settings.device)
    else:
        names, sizes = find_peers(options.peers, settings.device), options.sizes
        if options.compare is not None:
            names, default = operator.COMPARISONS[options.compare]
            sizes = sizes or default
        cases = [operator.Case(name, size, settings.batch) for name, size in find_sizes(sizes).items()]
    record = operator.make_record(settings, compare=options.compare, scaling=options.scaling)
    figures = {}

    def rows() -> Iterator[Any]:
        peak = measure_peak(settings)
        print(peak)
        figures["peak"] = vars(peak)
        yield from operator.measure(cases, names, tasks, settings, peak, memory=not options.skip_memory)

    _measure(rows(), record, options, figures)


def run_model(options: argparse.Namespace) -> None:
    """Time networks, print the table, write what was asked for."""
    from halonet.benchmark import model
    from halonet.benchmark.forms import make_groups
    from halonet.benchmark.operator import check_tasks

    check_outputs(options)
    tasks = check_tasks(options.passes, model.TASKS)
    _refuse_together(options, "compare", "accelerate")
    every = [make_settings(options, batch) for batch in options.batch]
    groups = make_groups(
        options.models, accelerate=options.accelerate, compare=options.compare, compiled=options.compile
    )
    record = model.make_record(every[0], options.image_size, accelerate=options.accelerate, compare=options.compare)
    _measure(model.measure(groups, tasks, every, options.image_size), record, options)


def run_memory(options: argparse.Namespace) -> None:
    """Measure one step of each network, print the table, write what was asked for."""
    from halonet.benchmark import model
    from halonet.benchmark.operator import check_tasks
    from halonet.benchmark.record import make_record

    check_outputs(options)
    (task,) = check_tasks([options.task], model.TASKS)
    options.repeats = 2
    settings = make_settings(options, options.batch)
    record = make_record("memory", {"image_size": options.image_size}, settings)
    _measure(model.measure_memory(options.models, task, settings, options.image_size), record, options)


def run_detector(options: argparse.Namespace) -> None:
    """Time detectors, print the table, write what was asked for."""
    from halonet.benchmark import detector
    from halonet.benchmark.record import make_record
    from halonet.errors import UserError, unknown_name
    from halonet.models import HALONETS

    check_outputs(options)
    options.dtype = "float32"
    settings = make_settings(options, options.batch)
    for name in options.backbones or ():
        if name not in HALONETS:
            raise UserError(unknown_name("model", name, HALONETS))
    record = make_record("detector", {"height": detector.HEIGHT, "width": detector.WIDTH}, settings)
    _measure(detector.measure(options.backbones or detector.BACKBONES, settings), record, options)


def run_average_precision(options: argparse.Namespace) -> None:
    """Time average precision, print the table, write what was asked for."""
    from halonet.benchmark import average_precision
    from halonet.benchmark.record import make_record
    from halonet.benchmark.settings import Settings
    from halonet.rules import Count, check_arguments

    check_outputs(options)
    check_arguments(images=(options.images, Count), detections=(options.detections, Count))
    settings = Settings(repeats=options.repeats, threads=1)
    record = make_record("average_precision", {"images": options.images, "detections": options.detections})
    rows = average_precision.measure(options.images, options.detections, settings, both=options.both)
    _measure(rows, record, options)


def run_claims(options: argparse.Namespace) -> None:
    """Train what has no record yet, and print a line about each run."""
    from functools import partial

    from halonet.benchmark.claims import runner
    from halonet.benchmark.claims.plan import read_plan
    from halonet.engine.files import check_output_folder

    check_output_folder(options.output)
    shard = runner.parse_shard(options.shard)
    if options.minutes is not None and not 0 < options.minutes < float("inf"):
        raise UsageError(f"--minutes is {options.minutes}, but must be a finite number above 0")
    runner.require_committed_code()
    runner.run_quietly()
    report = partial(print, flush=True)
    runner.run_claims(
        read_plan(),
        options.data,
        options.output,
        minutes=options.minutes,
        row=options.row,
        shard=shard,
        report=report,
    )


def _refuse_together(options: argparse.Namespace, one: str, other: str) -> None:
    if getattr(options, one) and getattr(options, other):
        raise UsageError(f"--{one} and --{other} exclude each other; give one of them")


def _measure(
    rows: Iterator[Any], record: dict[str, Any], options: argparse.Namespace, figures: dict[str, Any] | None = None
) -> None:
    """Measure row by row, then print, write and draw; `figures` of the run may be filled meanwhile."""
    from dataclasses import asdict

    from halonet.benchmark.record import describe_run, write_record
    from halonet.benchmark.table import format_rows

    check_file_of(record, options)
    run = describe_run(options.words)  # the time and the commit at which it began
    measured = []
    for row in rows:
        measured.append(row)
        print(f"measured: {row.case}, {row.task}", file=sys.stderr)
    print(format_rows(measured))
    about = record["machine"] | record["settings"] | {name: value for name, value in run.items() if value is not None}
    print("\n" + "; ".join(f"{name.replace('_', ' ')}: {value}" for name, value in about.items()))
    if options.output is not None:
        kept = {
            "provenance": run,
            "repeats": options.repeats,
            **(figures or {}),
            "rows": [asdict(row) for row in measured],
        }
        write_record(record, kept, options.output)
        print(f"written to {options.output}")
    if getattr(options, "plot", None) is not None:
        from halonet.benchmark.plot import draw

        draw(measured, options.plot)
        print(f"drawn to {options.plot}")
