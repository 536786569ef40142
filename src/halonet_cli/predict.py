"""`halonet predict`."""

from pathlib import Path
from typing import Any

from halonet_cli.files import add_checkpoint, add_root, check_images
from halonet_cli.parser import add_command


def add(commands: Any) -> None:
    """Add the command."""
    predict = add_command(commands, "predict", "predict:run_predict", "label images", check=check_images)
    add_checkpoint(predict)
    predict.add_argument("images", nargs="+", help="image files and folders")
    add_root(predict, "the folder that relative paths of images start from")
    predict.add_argument("--top-k", type=int, default=5, help="guesses for each image")
    predict.add_argument("--batch-size", type=int, default=64, help="images at a time")
    predict.add_argument("--device", default="auto", help="cpu, cuda, ...")
    form = predict.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--csv", action="store_true", help="print comma-separated values")
    predict.add_argument("--save-maps", type=Path, metavar="DIR", help="write a picture of where pixels look")
