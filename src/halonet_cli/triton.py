"""`halonet benchmark triton` and its commands."""

import argparse
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from halonet_cli.console import print_json
from halonet_cli.measuring import add_settings, check_file_of, check_outputs, make_settings
from halonet_cli.parser import UsageError, add_command, add_commands


def add_triton(kinds: Any) -> None:
    """Add `halonet benchmark triton`, and `tune` beside it too."""
    parser = add_command(kinds, "triton", None, "compile, search or tune the Triton kernels")
    commands = add_commands(parser, "triton", "WHAT")
    compiled = add_command(commands, "compile", run_compile, "compile kernels without a GPU, and predict their limits")
    compiled.add_argument("--sizes", nargs="+", default=["h1"], metavar="NAME", help="as of `operator`")
    compiled.add_argument("--dtypes", nargs="+", default=["bf16"], metavar="DTYPE", help="bf16, fp16, fp32")
    compiled.add_argument("--architectures", nargs="+", type=int, metavar="N", help="10 x the compute capability")
    compiled.add_argument("--batch", type=int, default=256, help="images at a time")
    compiled.add_argument("--output", type=Path, metavar="FILE", help="write the record (default: print it)")
    search = add_command(commands, "search", run_search, "search configurations for the kernels' table without a GPU")
    search.add_argument("--kernels", nargs="+", metavar="NAME", help="forward, queries, keys (default: all)")
    search.add_argument("--itemsizes", nargs="+", type=int, metavar="BYTES", help="2, 4 (default: both)")
    search.add_argument("--channels", nargs="+", type=int, metavar="N", help="of heads (default: all in the table)")
    search.add_argument("--processes", type=int, default=os.cpu_count(), help="that compile at once")
    search.add_argument("--record", type=Path, metavar="FILE", help="do not search: record what the whole table takes")
    for parent in (commands, kinds):
        tune = add_command(parent, "tune", run_tune, "find faster configurations of the Triton kernels, on a GPU")
        tune.add_argument("--sizes", nargs="+", metavar="NAME", help="as of `operator` (default: h1's stages)")
        add_settings(tune, batch=256, repeats=9, dtype="bfloat16")


def run_compile(options: argparse.Namespace) -> None:
    """Compile kernels, and print or write what they take."""
    _require_triton(compiled=True)
    from halonet.benchmark.record import describe_run, make_record, write_record
    from halonet.benchmark.sizes import find_sizes
    from halonet.benchmark.triton import compile as compiler
    from halonet.errors import UserError, unknown_name
    from halonet.ops.attention.triton.configurations import ARCHITECTURES
    from halonet.rules import Count, check_arguments

    check_outputs(options)
    check_arguments(batch=(options.batch, Count))
    for name in options.dtypes:
        if name not in compiler.DTYPES:
            raise UserError(unknown_name("dtype", name, compiler.DTYPES))
    architectures, sizes = _some(options, "architectures", ARCHITECTURES), find_sizes(options.sizes)
    record = make_record("triton_compile", {"batch": options.batch, "card": compiler.Card()._asdict()})
    check_file_of(record, options)
    rows = []
    for row in compiler.measure(sizes, options.dtypes, architectures, options.batch):
        print(row, file=sys.stderr, flush=True)
        rows.append(row)
    run = {"provenance": describe_run(options.words), "rows": rows}
    if options.output is None:
        print_json(record | {"runs": [run]})
        return
    write_record(record, run, options.output)
    print(f"written to {options.output}")


def run_search(options: argparse.Namespace) -> None:
    """Search configurations and print the table's lines, or record what the table takes."""
    _require_triton(compiled=True)
    from halonet.benchmark.record import describe_run, make_record, read_output, write_output
    from halonet.benchmark.triton import search
    from halonet.rules import Count, check_arguments

    check_arguments(processes=(options.processes, Count))
    if options.record is None:
        cells = search.cells(
            _some(options, "kernels", search.KERNELS),
            _some(options, "itemsizes", (2, 4)),
            _some(options, "channels", search.CHANNELS),
        )
        for line in search.search_all(cells, options.processes):
            print(line, flush=True)
        return
    read_output(options.record)
    run = {"provenance": describe_run(options.words), "kernels": search.digest()}
    run["rows"] = search.describe_table(options.processes)
    # What an earlier table took is of no use.
    write_output(make_record("triton_table", {}) | {"runs": [run]}, options.record)
    print(f"written to {options.record}")


def run_tune(options: argparse.Namespace) -> None:
    """Time configurations of the Triton kernels, print proposals for their table, write what was asked for."""
    _require_triton()
    from dataclasses import asdict

    from halonet.benchmark.record import describe_run, join_file, make_record, write_output
    from halonet.benchmark.sizes import find_sizes
    from halonet.benchmark.triton.tune import propose, tune

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


def _require_triton(compiled: bool = False) -> None:
    """Refuse without Triton; forbid its interpreter, which must be done before its import, if kernels are compiled."""
    if importlib.util.find_spec("triton") is None:
        raise UsageError("this benchmark needs Triton, which is not installed: pip install triton")
    if compiled:
        os.environ["TRITON_INTERPRET"] = "0"


def _some(options: argparse.Namespace, flag: str, known: Iterable[Any]) -> list[Any]:
    """Values of a flag, or all of those known."""
    from halonet.errors import UserError, unknown_name

    values, known = getattr(options, flag), list(known)
    for value in values or ():
        if value not in known:
            raise UserError(unknown_name(f"value of --{flag}", str(value), list(map(str, known))))
    return values or known
