"""`halonet export`."""

import argparse
from pathlib import Path
from typing import Any

from halonet_cli.files import add_checkpoint, check_checkpoint
from halonet_cli.parser import UsageError, add_command

FORMATS = ("onnx", "pt2", "hub")


def add(commands: Any) -> None:
    """Add the command."""
    export = add_command(
        commands,
        "export",
        "export:run_export",
        "write a trained network for ONNX Runtime, or as a program of PyTorch, for images of any size",
        check=check_export,
    )
    add_checkpoint(export)
    export.add_argument("file", type=Path, help="the file to write, NAME.onnx or NAME.pt2; a folder for hub")
    export.add_argument("--format", metavar="NAME", help=f"{', '.join(FORMATS)} (default: by the file's suffix)")
    export.add_argument("--normalize", action="store_true", help="let the file normalize images with values in [0, 1]")
    export.add_argument("--softmax", action="store_true", help="let the file give probabilities")
    export.add_argument("--features", action="store_true", help="give the feature maps of all levels instead of logits")
    export.add_argument("--min-size", type=int, default=1, help="the smallest height and width, in pixels")
    export.add_argument("--max-size", type=int, help="the largest height and width, in pixels (default: no limit)")
    export.add_argument("--skip-check", action="store_true", help="do not compare it with PyTorch at other sizes")


def check_export(options: argparse.Namespace) -> None:
    """Refuse what can be refused without reading anything."""
    check_checkpoint(options)
    if options.features and options.softmax:
        raise UsageError("--features gives maps, which have no probabilities: leave --softmax out")
