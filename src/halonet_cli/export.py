"""`halonet export`."""

import argparse
import os
from pathlib import Path
from typing import Any

from halonet_cli.files import add_checkpoint, check_checkpoint
from halonet_cli.parser import UsageError, add_command

FORMATS = ("onnx", "pt2", "aoti", "hub")


def add(commands: Any) -> None:
    """Add the command."""
    export = add_command(
        commands,
        "export",
        "export:run_export",
        "export a trained network: an ONNX file or a PyTorch program for images of any size, or a folder for the Hub",
        check=check_export,
    )
    add_checkpoint(export)
    export.add_argument("file", type=Path, help="the file to write, NAME.onnx or NAME.pt2; for hub, a new folder")
    export.add_argument(
        "--format", metavar="NAME", help=f"{', '.join(FORMATS)} (default: by the file's suffix, onnx or pt2)"
    )
    export.add_argument(
        "--normalize", action="store_true", help="let the file normalize images whose values are in [0, 1]"
    )
    export.add_argument("--softmax", action="store_true", help="let the file return probabilities instead of logits")
    export.add_argument("--features", action="store_true", help="return feature maps of all levels, not logits")
    export.add_argument(
        "--int8",
        type=Path,
        metavar="IMAGES",
        help="use 8-bit integers in convolutions and linear layers, calibrated on this folder of images (onnx, pt2)",
    )
    export.add_argument("--min-size", type=int, default=1, help="the smallest height and width in pixels")
    export.add_argument("--max-size", type=int, help="the largest height and width in pixels (default: no limit)")
    export.add_argument("--skip-check", action="store_true", help="do not compare the file with PyTorch at other sizes")


def check_export(options: argparse.Namespace) -> None:
    """Refuse what can be refused without reading anything."""
    check_checkpoint(options)
    if options.int8 is not None and not os.path.exists(options.int8):
        raise UsageError(f"--int8 {str(options.int8)[:200]} does not exist: name a folder of images to calibrate with")
    if options.features and options.softmax:
        raise UsageError("--features gives maps, which have no probabilities: leave --softmax out")
