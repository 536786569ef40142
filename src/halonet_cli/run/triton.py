"""`halonet benchmark triton compile` and `search`, which need no GPU."""

import argparse
import sys
from collections.abc import Iterable
from typing import Any

from halonet.benchmark.record import describe_run, make_record, read_output, write_output, write_record
from halonet.benchmark.settings import check_names
from halonet.benchmark.sizes import find_sizes
from halonet.benchmark.triton import compile as compiler, search
from halonet.errors import UserError, unknown_name
from halonet.ops.attention.triton.configurations import ARCHITECTURES
from halonet.rules import Count, check_arguments
from halonet_cli.console import print_json
from halonet_cli.run.measuring import check_file_of, check_outputs


def run_compile(options: argparse.Namespace) -> None:
    """Compile kernels, and print or write what they take."""
    check_outputs(options)
    check_arguments(batch=(options.batch, Count))
    check_names("dtype", options.dtypes, compiler.DTYPES)
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


def _some(options: argparse.Namespace, flag: str, known: Iterable[Any]) -> list[Any]:
    """Values of a flag, or all of those known."""
    values, known = getattr(options, flag), list(known)
    for value in values or ():
        if value not in known:
            raise UserError(unknown_name(f"value of --{flag}", str(value), list(map(str, known))))
    return values or known
