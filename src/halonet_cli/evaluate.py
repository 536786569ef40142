"""`halonet evaluate`."""

from typing import Any

from halonet_cli.files import add_checkpoint, add_root, check_checkpoint
from halonet_cli.parser import add_command


def add(commands: Any) -> None:
    """Add the command."""
    evaluate = add_command(
        commands, "evaluate", "evaluate:run_evaluate", "measure a checkpoint on a data set", check=check_checkpoint
    )
    add_checkpoint(evaluate)
    evaluate.add_argument("--data", metavar="DIR_OR_NAME", help="default: what it was trained on")
    add_root(evaluate, "the folder that a named data set lies in (default: as in training)")
    evaluate.add_argument("--split", help="default: the split that training measured at its end")
    evaluate.add_argument("--batch-size", type=int, default=256, help="images at a time")
    evaluate.add_argument("--workers", type=int, default=0, help="processes that load images")
    evaluate.add_argument("--device", default="auto", help="cpu, cuda, ...")
    evaluate.add_argument("--json", action="store_true", help="print JSON")
