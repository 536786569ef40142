"""`halonet info`."""

from typing import Any

from halonet_cli.parser import add_command


def add(commands: Any) -> None:
    """Add the command."""
    info = add_command(commands, "info", "info:run_info", "list the models beside the paper, and the backends here")
    info.add_argument("models", nargs="*", help="default: all")
    info.add_argument("--image-size", type=int, help="count at this size (default: each model's own)")
    info.add_argument("--json", action="store_true", help="print JSON")
