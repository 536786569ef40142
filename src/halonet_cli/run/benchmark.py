"""`halonet benchmark all`, `operator`, `model` and `memory`."""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from halonet.benchmark import model, operator
from halonet.benchmark.forms import make_groups
from halonet.benchmark.peak import measure_peak
from halonet.benchmark.peers import find_peers
from halonet.benchmark.record import make_record
from halonet.benchmark.settings import check_names
from halonet.benchmark.sizes import find_sizes
from halonet.benchmark.suite import measure_all
from halonet_cli.run.measuring import check_outputs, make_settings, measure, refuse_together


def run_all(options: argparse.Namespace) -> None:
    """Measure all sections; where the device is lost, another process measures the rest."""
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
    check_outputs(options)
    settings = make_settings(options, options.batch)
    tasks = check_names("pass", options.passes, operator.TASKS)
    if options.compare is not None:
        check_names("comparison", [options.compare], operator.COMPARISONS)
    refuse_together(options, "compare", "scaling")
    refuse_together(options, "compare", "peers")
    refuse_together(options, "scaling", "sizes")
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

    measure(rows(), record, options, figures)


def run_model(options: argparse.Namespace) -> None:
    """Time networks, print the table, write what was asked for."""
    check_outputs(options)
    tasks = check_names("pass", options.passes, model.TASKS)
    refuse_together(options, "compare", "accelerate")
    every = [make_settings(options, batch) for batch in options.batch]
    groups = make_groups(
        options.models, accelerate=options.accelerate, compare=options.compare, compiled=options.compile
    )
    record = model.make_record(every[0], options.image_size, accelerate=options.accelerate, compare=options.compare)
    measure(model.measure(groups, tasks, every, options.image_size), record, options)


def run_memory(options: argparse.Namespace) -> None:
    """Measure one step of each network, print the table, write what was asked for."""
    check_outputs(options)
    (task,) = check_names("pass", [options.task], model.TASKS)
    options.repeats = 2
    settings = make_settings(options, options.batch)
    record = make_record("memory", {"image_size": options.image_size}, settings)
    measure(model.measure_memory(options.models, task, settings, options.image_size), record, options)
