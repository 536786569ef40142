"""`halonet demo`."""

import argparse
from typing import Any

from halonet_cli.files import CHECKPOINT, check_checkpoint
from halonet_cli.parser import UsageError, add_command


def add(commands: Any) -> None:
    """Add the command."""
    demo = add_command(
        commands,
        "demo",
        "demo:run_demo",
        "serve a web page on this machine: try a network on pictures, and see where it looks",
        check=_check,
    )
    demo.add_argument(
        "checkpoint",
        nargs="?",
        help=f"{CHECKPOINT}; of a classifier or a detector (default: mini32.cifar10)",
    )
    demo.add_argument("--port", type=int, metavar="N", help="the port (default: the first free one from 7860 on)")


def _check(options: argparse.Namespace) -> None:
    if options.port is not None and not 1 <= options.port <= 65_535:
        raise UsageError(f"--port is {options.port}, but must be from 1 to 65,535")
    if options.checkpoint is not None:
        check_checkpoint(options)
