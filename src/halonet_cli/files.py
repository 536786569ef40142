"""Flags for files that a command reads, which are refused without importing `halonet` if they are not there."""

import argparse
import os
from pathlib import Path

from halonet_cli.parser import Parser, UsageError
from halonet_cli.recipe_check import halonet_folder

CHECKPOINT = "a run folder, a folder for the Hub, a model.safetensors, a .ckpt or the name of weights"


def add_root(parser: Parser, summary: str) -> None:
    """Add the flag `--data.root`."""
    parser.add_argument("--data.root", dest="root", type=Path, metavar="DIR", help=summary)


def add_checkpoint(parser: Parser) -> None:
    """Add the checkpoint that a command reads."""
    parser.add_argument("checkpoint", help=CHECKPOINT)


def check_checkpoint(options: argparse.Namespace) -> None:
    """Refuse a checkpoint that is not there."""
    path = options.checkpoint
    if os.path.isdir(path):
        path = os.path.join(path, "model.safetensors")
    if os.path.exists(path):
        return
    names = [file.stem for file in (halonet_folder() / "models" / "weights").glob("*.safetensors")]
    if path.removeprefix("halonet_paper_") not in [*names, *(name.partition(".")[2] for name in names)]:
        raise UsageError(
            f"there is no checkpoint {path[:200]}: give a run folder, a model.safetensors, a .ckpt file or one of "
            f"{', '.join(sorted(names))}"
        )


def check_images(options: argparse.Namespace) -> None:
    """Refuse images and a checkpoint that are not there."""
    for image in options.images:
        path = os.path.join(getattr(options, "root", None) or "", image)
        if not os.path.exists(path):
            raise UsageError(f"image file or folder {path[:200]} does not exist")
    check_checkpoint(options)
