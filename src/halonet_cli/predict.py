"""`halonet predict`."""

import argparse
from pathlib import Path
from typing import Any

from halonet_cli.files import add_checkpoint, add_root, check_images
from halonet_cli.parser import UsageError, add_command


def add(commands: Any) -> None:
    """Add the command."""
    predict = add_command(
        commands, "predict", "predict:run_predict", "label images with a trained classifier", check=_check
    )
    add_checkpoint(predict)
    predict.add_argument("images", nargs="+", help="image files and folders")
    add_root(predict, "the folder that relative paths of images start from (default: the current one)")
    predict.add_argument("--top-k", type=int, default=5, help="how many labels to print for each image")
    predict.add_argument("--batch-size", type=int, default=64, help="images per batch")
    predict.add_argument("--device", default="auto", help="cpu, cuda, ...; auto takes a GPU if there is one")
    form = predict.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead of a table")
    form.add_argument("--csv", action="store_true", help="print comma-separated values instead of a table")
    predict.add_argument(
        "--save-maps", type=Path, metavar="DIR", help="write a picture for each image of where pixels look"
    )
    which = predict.add_argument_group(
        "what the pictures of --save-maps show",
        "Without these flags: three pixels, in the last attention layer of each stage. All numbers count from 0.",
    )
    which.add_argument("--layer", type=int, metavar="N", help="the attention layer (default: the last)")
    which.add_argument("--head", type=int, metavar="N", help="the head (default: all heads, and their mean)")
    which.add_argument(
        "--pixel",
        type=int,
        nargs=2,
        metavar=("ROW", "COLUMN"),
        help="the pixel of the network's input whose attention is drawn (default: the center)",
    )


def _check(options: argparse.Namespace) -> None:
    for flag in ("layer", "head", "pixel"):
        if getattr(options, flag) is not None and options.save_maps is None:
            raise UsageError(f"--{flag} chooses what --save-maps shows: add --save-maps DIR")
    check_images(options)
