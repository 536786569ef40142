"""`halonet demo`."""

import argparse
from typing import Any

from halonet_cli.files import check_checkpoint
from halonet_cli.parser import UsageError, add_command


def add(commands: Any) -> None:
    """Add the command."""
    demo = add_command(commands, "demo", "demo:run_demo", "show a network on a local web page", check=_check)
    demo.add_argument(
        "checkpoint",
        nargs="?",
        help="a run folder, a model.safetensors or a .ckpt, also of a detector; default: the CIFAR-10 network",
    )
    demo.add_argument("--port", type=int, metavar="N", help="default: the first free one from 7860 on")


def _check(options: argparse.Namespace) -> None:
    if options.port is not None and not 1 <= options.port <= 65_535:
        raise UsageError(f"--port is {options.port}, but must be from 1 to 65,535")
    if options.checkpoint is not None:
        check_checkpoint(options)
