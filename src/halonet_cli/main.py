"""The `halonet` program: parse, check what can be checked at once, import `halonet`, run one function."""

import argparse
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from halonet_cli import benchmark, completion, detect, evaluate, info, predict, recipes, train
from halonet_cli.console import printable, survive_any_encoding, tell
from halonet_cli.parser import Parser, UsageError, add_commands, find_command, refuse_unknown
from halonet_cli.recipe_check import fields_of

INTERNAL = (
    "halonet: this is a fault of halonet, not yours: please report it to its maintainers, with the command line and "
    "all of the above"
)
TRAIN_MODULES = ("lightning", "matplotlib", "pydantic", "tensorboard", "torchmetrics", "torchvision")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        argv: Words after the program's name; None takes those of the process.

    Returns:
        The exit status: 0, 1 where some of many images could not be read, 2 for a mistake of the user (told on stderr),
        and 130, 143 or 129 after Ctrl-C, SIGTERM or SIGHUP (one line too).
    """
    survive_any_encoding()
    if "halonet" not in sys.modules:  # its import takes seconds, in which a signal may come
        _end_at_signals()
    try:
        options = parse(sys.argv[1:] if argv is None else list(argv))
        status = (run_with_halonet if options.needs_halonet else options.run)(options) or 0
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
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and leave")
    parser.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        choices=completion.SHELLS,
        metavar="SHELL",
        help="print what completes commands in a shell (bash, zsh): `source <(halonet --print-completion bash)`",
    )
    commands = add_commands(parser, "command", "COMMAND")
    for module in (train, evaluate, predict, info, recipes, detect, benchmark):
        module.add(commands)
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse and check a command line, without importing `halonet`.

    Args:
        argv: All words after the program's name.

    Returns:
        The options, with `words`, all words; `changes`, the fields of a recipe as "schedule.epochs=3"; and what
        `add_command` sets.

    Raises:
        UsageError: The user made a mistake.
    """
    parser = make_parser()
    command = find_command(parser, argv)
    words, changes = (list(argv), []) if command.task is None else train.split_changes(argv)
    options, unknown = parser.parse_known_args(words, argparse.Namespace(words=list(argv), changes=changes))
    refuse_unknown(command, unknown, () if command.task is None else fields_of(command.task))
    if options.check is not None:
        options.check(options)
    return options


def run_with_halonet(options: argparse.Namespace) -> int:
    """Import `halonet`, run a command, and tell a user's mistake on one line.

    Args:
        options: Of the command.

    Returns:
        The exit status, see `main`.
    """
    from halonet.errors import UserError
    from halonet.installation import command_for_extra
    from halonet.interrupts import Interrupted, interruptible

    with interruptible():
        try:
            with _notes_on_stderr():
                return options.run(options) or 0
        except KeyboardInterrupt as error:
            stop = error if isinstance(error, Interrupted) else Interrupted("interrupted")
            if str(stop):  # of several processes of a run, the first speaks
                with suppress(OSError):  # the terminal may be gone
                    print(f"halonet: {stop}", file=sys.stderr, flush=True)
            return stop.status
        except UserError as error:
            tell(_message(error, options.parser))
            return 2
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] not in TRAIN_MODULES:
                raise
            extra = "detection" if options.command == "detect" else "train"
            tell(f"{options.command} needs {error.name}: {command_for_extra(extra)}")
            return 2


def _message(error: Exception, parser: Parser) -> str:
    """What to tell of a `UserError`; an argument of a call is named by the flag that it comes from."""
    complaints = getattr(error, "complaints", ())
    dests = {action.dest for action in parser._actions}
    if complaints and dests.issuperset(each.key for each in complaints):
        return "; ".join(f"{parser.flag_of(each.key)} {each.text}" for each in complaints)
    # From a process that loads images, the message comes at the end of that process's traceback.
    return re.split(r"halonet\.(?:errors|rules)\.\w+: ", str(error))[-1].rstrip()


@contextmanager
def _notes_on_stderr() -> Iterator[None]:
    from halonet.errors import UserNote

    show = warnings.showwarning

    def show_note(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if issubclass(category, UserNote):
            print(f"halonet: note: {printable(str(message))}", file=sys.stderr)
        else:
            show(message, category, *place)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserNote)
        warnings.showwarning = show_note
        yield


def _end_at_signals() -> None:
    """End with one line at a signal, until `halonet.interrupts` is there to handle it."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


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
