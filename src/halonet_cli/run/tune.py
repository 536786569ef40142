"""`halonet benchmark tune`."""

import argparse
from dataclasses import asdict

from halonet.benchmark.record import describe_run, join_file, make_record, write_output
from halonet.benchmark.sizes import find_sizes
from halonet.benchmark.triton.tune import propose, tune
from halonet_cli.run.measuring import check_outputs, make_settings


def run_tune(options: argparse.Namespace) -> None:
    """Time configurations of the Triton kernels, print proposals for their table, write what was asked for."""
    check_outputs(options)
    settings = make_settings(options, options.batch)
    record = make_record("tune", {}, settings)
    if options.output is not None:
        record = join_file(record, options.output)
    run = {"provenance": describe_run(options.words), "repeats": settings.repeats, "rows": []}
    for name, size in find_sizes(options.sizes).items():
        trials = list(tune(size, settings))
        print(name, *propose(trials), sep="\n  ", flush=True)
        run["rows"] += [{"size": name} | asdict(trial) for trial in trials]
        if options.output is not None:  # after each size, which takes minutes to compile
            write_output(record | {"runs": [*record["runs"], run]}, options.output)
    if options.output is not None:
        print(f"written to {options.output}")
