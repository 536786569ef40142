"""The `halonet` program: outside the package, whose import takes seconds, so that a signal meanwhile is one line."""

import os
import signal
from types import FrameType


def main() -> int:
    """Import the command line and run it.

    Returns:
        The exit status, see `halonet.cli.main`.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    from halonet.cli import main as run

    return run()


def _end(number: int, frame: FrameType | None) -> None:
    name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    os.write(2, f"halonet: interrupted by {name}\n".encode())
    os._exit(128 + number)
