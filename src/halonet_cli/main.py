"""The `halonet` program: parse, check what can be checked at once, import `halonet`, run one function."""

import argparse
import os
import pkgutil
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from halonet_cli import benchmark, completion, demo, detect, evaluate, export, info, predict, recipes, train
from halonet_cli.console import survive_any_encoding, tell
from halonet_cli.parser import Parser, UsageError, add_commands, find_command, refuse_unknown
from halonet_cli.recipe_check import fields_of

INTERNAL = (
    "halonet: this is a fault of halonet, not yours: please report it to its maintainers, with the command line and "
    "all of the above"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program on the words after its name; None takes them from `sys.argv`.

    Returns:
        The exit status: 0, 1 where some of many images could not be read, 2 for a user's mistake (reported on stderr),
        and 130, 143 or 129 after Ctrl-C, SIGTERM or SIGHUP (one line too).
    """
    survive_any_encoding()
    with _ending_at_signals():
        return _run(argv)


def _run(argv: Sequence[str] | None) -> int:
    try:
        options = parse(sys.argv[1:] if argv is None else list(argv))
        needs_halonet = options.run.startswith("halonet_cli.run.")
        run = pkgutil.resolve_name("halonet_cli.run.command:run_command" if needs_halonet else options.run)
        status = run(options) or 0
        sys.stdout.flush()
        return status
    except UsageError as error:
        tell(str(error))
        return 2
    except BrokenPipeError:  # the reader of our output, `head` for one, has had enough
        sys.stderr.close()
        return 0
    except Exception as error:
        error.add_note(INTERNAL)
        raise


def make_parser() -> Parser:
    """Build the parser of all commands."""
    parser = Parser(prog="halonet", description="Local self-attention for vision.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    parser.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        choices=completion.SHELLS,
        metavar="SHELL",
        help="print a completion script for a shell (bash, zsh): `source <(halonet --print-completion bash)`",
    )
    commands = add_commands(parser, "command", "COMMAND")
    for module in (train, evaluate, predict, export, info, recipes, detect, demo, benchmark):
        module.add(commands)
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse and check a command line, without importing `halonet`; raise a `UsageError` for a mistake of the user.

    Returns:
        The options, with `words`, all words; `changes`, the fields of a recipe as "schedule.epochs=3"; and what
        `add_command` sets.
    """
    parser = make_parser()
    command = find_command(parser, argv)
    words, changes = (list(argv), []) if command.task is None else train.split_changes(argv)
    options, unknown = parser.parse_known_args(words, argparse.Namespace(words=list(argv), changes=changes))
    refuse_unknown(command, unknown, () if command.task is None else fields_of(command.task))
    if options.check is not None:
        options.check(options)
    return options


@contextmanager
def _ending_at_signals() -> Iterator[None]:
    """End with one line at a signal, until `halonet.interrupts` is there to handle it: the import takes seconds."""
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if "halonet" in sys.modules or threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}
    for number in before:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    os.write(2, f"halonet: interrupted by {name}\n".encode())
    os._exit(128 + number)


class _Version(argparse.Action):
    def __call__(self, parser: Any, *_: Any) -> None:
        from importlib import metadata  # takes as long to import as all the rest

        print(f"halonet {metadata.version('halonet')}")
        parser.exit()


class _PrintCompletion(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, shell: Any, *_: Any) -> None:
        print(completion.make_completion(parser, shell))
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
