"""`halonet benchmark` and its commands."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from halonet_cli.parser import UsageError, add_command, add_commands


def add(commands: Any) -> None:
    """Add the benchmarks."""
    parser = add_command(commands, "benchmark", None, "time and memory of the operator and of whole networks")
    kinds = add_commands(parser, "benchmark", "WHAT")

    operator = add_command(kinds, "operator", run_operator, "race the bare operator against its peers")
    operator.add_argument(
        "--sizes", nargs="+", metavar="NAME", help="e.g. h5/stage2-strided, h7, awkward (default: h1's stages)"
    )
    operator.add_argument("--passes", nargs="+", metavar="PASS", help="forward, training (default: both)")
    operator.add_argument("--peers", nargs="+", metavar="NAME", help="whom to race with our kernel (default: all)")
    operator.add_argument("--compare", metavar="WHAT", help="race our own forms: centered, strided")
    operator.add_argument("--scaling", metavar="WHAT", help="how time grows with the image, or with the window")
    operator.add_argument("--skip-memory", action="store_true", help="measure no peak memory")
    _add_settings(operator, batch=4, repeats=15)
    operator.add_argument("--dtype", default="float32", help="of the operator's tensors")
    operator.add_argument("--plot", type=Path, metavar="FILE", help="draw the figures (png, svg or pdf)")

    model = add_command(kinds, "model", run_model, "race whole networks")
    model.add_argument("--models", nargs="+", metavar="NAME", help="rows of `halonet info`, and timm/NAME")
    model.add_argument("--passes", nargs="+", metavar="PASS", help="inference, training (default: both)")
    model.add_argument("--accelerate", action="store_true", help="timm's halo networks before and after accelerate")
    model.add_argument("--compare", metavar="WHAT", help="race forms of our rows: centered, strided")
    model.add_argument("--compile", action="store_true", help="race the halo networks compiled too")
    model.add_argument(
        "--image-size",
        type=int,
        help="side of the images in pixels (default: 256; with --accelerate the network's own)",
    )
    _add_dtype_of_networks(model)
    _add_settings(model, batch=[1, 4], repeats=7)
    model.add_argument("--plot", type=Path, metavar="FILE", help="draw the figures (png, svg or pdf)")

    memory = add_command(kinds, "memory", run_memory, "measure the peak memory of one step")
    memory.add_argument("--models", nargs="+", metavar="NAME", help="default: h1 timm/halonet_h1")
    memory.add_argument("--pass", dest="task", default="training", help="inference or training")
    memory.add_argument("--image-size", type=int, default=256, help="side of the images in pixels")
    _add_dtype_of_networks(memory)
    _add_settings(memory, batch=16, repeats=None)

    tune = add_command(kinds, "tune", run_tune, "find faster cuts of the Triton kernels, on a GPU")
    tune.add_argument("--sizes", nargs="+", metavar="NAME", help="as of `operator` (default: h1's stages)")
    _add_settings(tune, batch=256, repeats=9)
    tune.add_argument("--dtype", default="bfloat16", help="of the operator's tensors")

    claims = add_command(kinds, "claims", run_claims, "train the next missing runs of the paper's claims on CIFAR-10")
    claims.add_argument("--data", type=Path, required=True, metavar="DIR", help="the folder that holds CIFAR-10")
    claims.add_argument("--minutes", type=float, help="begin no run that would not end in time (default: go on)")
    claims.add_argument("--row", metavar="ROW", help="train only this row of the plan")
    claims.add_argument("--shard", default="1/1", metavar="I/N", help="every N-th run from the I-th on")
    claims.add_argument(
        "--output", type=Path, default=Path("results/claims"), metavar="DIR", help="where the records are"
    )


def _add_dtype_of_networks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dtype", default="float32", help="that networks compute in; half precision by autocast")


def _add_settings(parser: argparse.ArgumentParser, batch: int | list[int], repeats: int | None) -> None:
    several = "+" if isinstance(batch, list) else None
    parser.add_argument("--batch", type=int, default=batch, nargs=several, help="images at a time")
    if repeats is not None:
        parser.add_argument("--repeats", type=int, default=repeats, help="timed runs of each")
    parser.add_argument("--threads", type=int, help="default: as many as PyTorch takes")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ...")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the record, or append to it")


def run_operator(options: argparse.Namespace) -> None:
    """Race the operator, print the table, write what was asked for."""
    from halonet.benchmark import operator
    from halonet.benchmark.contestants import find_peers
    from halonet.benchmark.peak import measure_peak
    from halonet.benchmark.sizes import find_sizes
    from halonet.errors import UserError, unknown_name

    _check_outputs(options)
    settings = _settings(options, options.batch)
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
    record = _begin("operator", {"compare": options.compare, "scaling": options.scaling}, settings, options)
    peak = measure_peak(settings)
    print(peak)
    rows = operator.measure(cases, names, tasks, settings, peak, memory=not options.skip_memory)
    _finish(rows, record, options, peak=vars(peak))


def run_model(options: argparse.Namespace) -> None:
    """Race networks, print the table, write what was asked for."""
    from halonet.benchmark import model
    from halonet.benchmark.operator import check_tasks

    _check_outputs(options)
    tasks = check_tasks(options.passes, model.TASKS)
    _refuse_together(options, "compare", "accelerate")
    every = [_settings(options, batch) for batch in options.batch]
    groups = model.make_groups(
        options.models, accelerate=options.accelerate, compare=options.compare, compiled=options.compile
    )
    question = {"image_size": options.image_size, "accelerate": options.accelerate, "compare": options.compare}
    record = _begin("model", question, every[0], options)
    rows = model.measure(groups, tasks, every, options.image_size)
    _finish(rows, record, options)


def run_memory(options: argparse.Namespace) -> None:
    """Measure one step of each network, print the table, write what was asked for."""
    from halonet.benchmark import model
    from halonet.benchmark.operator import check_tasks

    _check_outputs(options)
    (task,) = check_tasks([options.task], model.TASKS)
    options.repeats = 2
    settings = _settings(options, options.batch)
    record = _begin("memory", {"image_size": options.image_size}, settings, options)
    rows = [model.measure_memory(options.models, task, settings, options.image_size)]
    _finish(rows, record, options)


def run_tune(options: argparse.Namespace) -> None:
    """Try cuts of the Triton kernels, print proposals for their table, write what was asked for."""
    from dataclasses import asdict

    from halonet.benchmark.record import describe_run, make_record, write_output
    from halonet.benchmark.sizes import find_sizes
    from halonet.benchmark.tune import propose, tune

    _check_outputs(options)
    settings = _settings(options, options.batch)
    sizes = find_sizes(options.sizes)
    tried = {}
    for name, size in sizes.items():
        trials = list(tune(size, settings))
        print(name, *propose(trials), sep="\n  ", flush=True)
        tried[name] = [asdict(trial) for trial in trials]
        if options.output is not None:  # after every size: one takes minutes to compile
            record = make_record("tune", {}, settings)
            write_output(record | {"provenance": describe_run(options.words), "trials": tried}, options.output)
    if options.output is not None:
        print(f"written to {options.output}")


def run_claims(options: argparse.Namespace) -> None:
    """Train what has no record yet, and print a line about each run."""
    from functools import partial

    from halonet.benchmark.claims import runner
    from halonet.benchmark.claims.plan import read_plan
    from halonet.training.files import check_output_folder

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


def _settings(options: argparse.Namespace, batch: int) -> Any:
    import torch

    from halonet.benchmark.settings import Settings, find_device

    settings = Settings(
        batch=batch,
        repeats=options.repeats,
        threads=torch.get_num_threads() if options.threads is None else options.threads,
        dtype=options.dtype,
        device=find_device(options.device),
    )
    torch.set_num_threads(settings.threads)
    return settings


def _refuse_together(options: argparse.Namespace, one: str, other: str) -> None:
    if getattr(options, one) and getattr(options, other):
        raise UsageError(f"--{one} and --{other} exclude each other; give one of them")


def _check_outputs(options: argparse.Namespace) -> None:
    """Refuse files that cannot be written before anything else is done."""
    if options.output is not None:
        from halonet.benchmark.record import read_output

        read_output(options.output)
    if getattr(options, "plot", None) is not None:
        from halonet.benchmark.plot import check_file

        check_file(options.plot)


def _begin(benchmark: str, question: dict[str, Any], settings: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Begin the record, and refuse a file of another one before anything is measured."""
    from halonet.benchmark.record import join_file, make_record

    record = make_record(benchmark, question, settings)
    if benchmark == "model":
        del record["settings"]["batch"]  # there may be several, and a row says its own
    if options.output is not None:
        join_file(record, options.output)
    return record


def _finish(rows: Iterable[Any], record: dict[str, Any], options: argparse.Namespace, **figures: Any) -> None:
    """Measure row by row, then print, write and draw."""
    from dataclasses import asdict

    from halonet.benchmark.record import describe_run, write_record
    from halonet.benchmark.table import format_rows

    run = describe_run(options.words)  # the time and the commit at which it began
    measured = []
    for row in rows:
        measured.append(row)
        print(f"measured: {row.case}, {row.task}", file=sys.stderr)
    print(format_rows(measured))
    about = record["machine"] | record["settings"] | {name: value for name, value in run.items() if value is not None}
    print("\n" + "; ".join(f"{name}: {value}" for name, value in about.items()))
    if options.output is not None:
        kept = {"provenance": run, "repeats": options.repeats, **figures, "rows": [asdict(row) for row in measured]}
        write_record(record, kept, options.output)
        print(f"written to {options.output}")
    if getattr(options, "plot", None) is not None:
        from halonet.benchmark.plot import draw

        draw(measured, options.plot)
        print(f"drawn to {options.plot}")
