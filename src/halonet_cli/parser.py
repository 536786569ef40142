"""The parser that all commands share: it reports a mistake on one line, with a hint at what was meant."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from halonet_cli.hints import LONGEST_NAME, meant_flag, unknown_name

Check = Callable[[argparse.Namespace], None]


class UsageError(Exception):
    """A user's mistake in the command line; reported on one line, with status 2."""


class Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults other than None and False."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """The parser of the program or of a command.

    Attributes:
        commands: The commands below this one, by name.
        task: The task whose recipes' fields the command takes as flags, or None.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=Formatter, **options)
        self.register("type", int, _whole_number)
        self.register("type", float, _number)
        self.commands: dict[str, Parser] = {}
        self.task: str | None = None

    def error(self, message: str) -> NoReturn:
        """Raise a `UsageError` instead of printing the usage and leaving."""
        raise UsageError(f"{message.removeprefix('argument ')} (see {self.prog} --help)")

    def flags(self) -> list[str]:
        """List the long flags, and the names of what is given without a flag."""
        return [word for action in self._actions for word in action.option_strings or [action.dest]]

    def flag_of(self, dest: str) -> str:
        """Name the flag, or what is given without one, that an attribute of the parsed options comes from."""
        (action,) = [action for action in self._actions if action.dest == dest]
        return action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest)


def add_commands(parser: Parser, dest: str, metavar: str) -> Any:
    """Let a parser have commands, one of which must be named; the attribute `dest` of the options tells which."""
    commands = parser.add_subparsers(dest=dest, required=True, metavar=metavar)
    parser.commands = commands.choices  # pyright: ignore[reportAttributeAccessIssue] - of the parser's class
    return commands


def add_command(commands: Any, name: str, run: str | None, summary: str, *, check: Check | None = None) -> Parser:
    """Add a command.

    Args:
        commands: What `add_commands` returned.
        name: Of the command.
        run: "MODULE:FUNCTION" in `halonet_cli.run`, which is imported after parsing. The function takes the parsed
            options, prints, and returns the exit status or None for 0. None for a group of commands.
        summary: For the help, without a full stop.
        check: Finds mistakes before `halonet` is imported, and raises a `UsageError`; it may change the options.
    """
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    parser.set_defaults(run=f"halonet_cli.run.{run}", check=check, parser=parser)
    return parser


def find_command(parser: Parser, argv: Sequence[str]) -> Parser:
    """Find the parser of the command that the first words name; raise a `UsageError` if there is none."""
    for word in argv:
        if not parser.commands or word.startswith("-"):
            return parser
        if word not in parser.commands:
            within = [f"{name} {word}" for name, group in parser.commands.items() if word in group.commands]
            raise UsageError(unknown_name("command", word, [*parser.commands, *within]))
        parser = parser.commands[word]
    if parser.commands:
        parser.error(f"give a command: {', '.join(parser.commands)}")
    return parser


def refuse_unknown(parser: Parser, words: Sequence[str], fields: Iterable[str]) -> None:
    """Raise a `UsageError` for words that a command did not understand; `fields` of recipes are flags of it too."""
    flag = next((word for word in words if word.startswith("-")), None)
    if flag is None:
        if words:
            parser.error(f"unexpected argument {words[0][:LONGEST_NAME]!r}")
        return
    flag = flag.partition("=")[0]
    hint = meant_flag(flag, parser.flags(), fields)
    parser.error(f"unknown flag {flag[:LONGEST_NAME]!r}{hint and f'. Did you mean {hint}?'}")


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:LONGEST_NAME]!r} is not a whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:LONGEST_NAME]!r} is not a number") from None
