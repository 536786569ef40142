"""What the commands of `halonet benchmark` share."""

import argparse
from pathlib import Path
from typing import Any


def add_settings(
    parser: argparse.ArgumentParser,
    batch: int | list[int],
    repeats: int | None,
    dtype: str | None = None,
    plot: bool = False,
) -> None:
    """Add the flags that `make_settings` and `check_outputs` read."""
    several = "+" if isinstance(batch, list) else None
    parser.add_argument("--batch", type=int, default=batch, nargs=several, help="images at a time")
    if repeats is not None:
        parser.add_argument("--repeats", type=int, default=repeats, help="timed runs of each")
    parser.add_argument("--threads", type=int, help="default: as many as PyTorch takes")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ...")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the record, or append to it")
    if dtype is not None:
        parser.add_argument("--dtype", default=dtype, help="of the operator, and of networks by autocast")
    if plot:
        parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the figures (png, svg or pdf)")


def make_settings(options: argparse.Namespace, batch: int) -> Any:
    """Make the settings of the flags, and set PyTorch's threads."""
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


def check_outputs(options: argparse.Namespace) -> None:
    """Refuse files that cannot be written before anything else is done."""
    if options.output is not None:
        from halonet.benchmark.record import read_output

        read_output(options.output)
    if getattr(options, "plot", None) is not None:
        from halonet.benchmark.plot import check_file

        check_file(options.plot)


def check_file_of(record: dict[str, Any], options: argparse.Namespace) -> None:
    """Refuse a file of another record before anything is measured."""
    from halonet.benchmark.record import join_file

    if options.output is not None:
        join_file(record, options.output)
