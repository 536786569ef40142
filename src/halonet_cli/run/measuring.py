"""What the commands of `halonet benchmark` share."""

import argparse
import importlib
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch

from halonet.benchmark.record import describe_run, join_file, read_output, write_record
from halonet.benchmark.settings import Settings, find_device
from halonet.benchmark.table import format_rows
from halonet_cli.parser import UsageError


def make_settings(options: argparse.Namespace, batch: int) -> Any:
    """Make the settings of the flags, and set PyTorch's threads."""
    settings = Settings(
        batch=batch,
        repeats=options.repeats,
        threads=torch.get_num_threads() if options.threads is None else options.threads,
        dtype=options.dtype,
        device=find_device(options.device),
    )
    torch.set_num_threads(settings.threads)
    return settings


def check_outputs(options: argparse.Namespace) -> None:
    """Refuse files that cannot be written before anything else is done."""
    if options.output is not None:
        read_output(options.output)
    if getattr(options, "plot", None) is not None:
        _plot().check_file(options.plot)


def _plot() -> Any:
    return importlib.import_module("halonet.benchmark.plot")  # needs matplotlib, which is an extra


def check_file_of(record: dict[str, Any], options: argparse.Namespace) -> None:
    """Refuse a file of another record before anything is measured."""
    if options.output is not None:
        join_file(record, options.output)


def refuse_together(options: argparse.Namespace, one: str, other: str) -> None:
    """Refuse two flags that exclude each other."""
    if getattr(options, one) and getattr(options, other):
        raise UsageError(f"--{one} and --{other} exclude each other; give one of them")


def measure(
    rows: Iterator[Any], record: dict[str, Any], options: argparse.Namespace, figures: dict[str, Any] | None = None
) -> None:
    """Measure row by row, then print, write and draw; `figures` of the run may be filled meanwhile."""
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
        _plot().draw(measured, options.plot)
        print(f"drawn to {options.plot}")
