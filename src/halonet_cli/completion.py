"""`halonet --print-completion SHELL`: what completes commands, flags, recipes and their fields in a shell."""

from pathlib import Path

from halonet_cli.hints import spell
from halonet_cli.parser import Parser
from halonet_cli.recipe_check import fields_of, packaged

SHELLS = ("bash", "zsh")
FILES = ("checkpoint", "images")  # given without a flag


def make_completion(parser: Parser, shell: str) -> str:
    """Make the script that a shell, one of `SHELLS`, reads; the parser must not parse anything afterwards."""
    import shtab

    _complete_files(parser, shtab.FILE)
    recipes = " ".join(packaged().names())
    # A name or a file: compgen of both in bash, both groups of _alternative in zsh.
    preamble = {
        "bash": f'_halonet_recipes() {{ compgen -W "{recipes}" -- "$1"; compgen -f -- "$1"; }}',
        "zsh": f'_halonet_recipes() {{ _alternative "recipes:recipe:({recipes})" "files:file:_files"; }}',
    }
    return shtab.complete(parser, shell, preamble=preamble)  # pyright: ignore[reportArgumentType] - a str by its default


def _complete_files(parser: Parser, files: dict[str, str]) -> None:
    """Say which words are files and recipes, and make flags of the fields of recipes."""
    recipe = dict.fromkeys(SHELLS, "_halonet_recipes")
    for action in parser._actions:
        if action.dest == "recipe":
            action.complete = recipe  # pyright: ignore[reportAttributeAccessIssue] - shtab's way
        elif action.type is Path or action.dest in FILES:
            action.complete = files  # pyright: ignore[reportAttributeAccessIssue]
    for field in fields_of(parser.task) if parser.task else ():
        parser.add_argument(spell(field))
    for command in parser.commands.values():
        _complete_files(command, files)
