"""The commands in the pages are commands that the program understands, down to flags, recipes and their fields."""

import shlex
from pathlib import Path

import pytest

from halonet_cli.main import parse
from tests.docs.pages import DOCS, FENCE

PAGES = [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))]
PICTURES = (".jpg", ".png")


def commands_of(page: Path) -> list[str]:
    blocks = [code for language, code in FENCE.findall(page.read_text(encoding="utf-8")) if language == "bash"]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("halonet ")]


COMMANDS = [pytest.param(line, id=f"{page.name}: {line}") for page in PAGES for line in commands_of(page)]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_in_the_pages_is_understood(command, monkeypatch):
    # Files and run folders are taken to be there; names of weights, which are words without a slash, are looked up.
    monkeypatch.setattr("os.path.exists", lambda path: isinstance(path, Path) or "/" in path or path.endswith(PICTURES))
    parse(shlex.split(command, comments=True)[1:])


def test_the_commands_are_found():
    assert len(COMMANDS) > 50
