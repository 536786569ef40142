"""The program answers what needs no network without importing PyTorch, timm or halonet."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import halonet_cli
from halonet_cli.main import make_parser

PACKAGE = Path(halonet_cli.__file__).parent
ALLOWED = set(sys.stdlib_module_names) | {"halonet_cli"}
QUICK = """
--help
--version
--print-completion bash
recipes
recipes --json
recipes fashion_mnst
train --help
train fashion_mnst
train no_such.yaml
train detection/nuclei
train --schedule.epoch 3
train --epochs 3
train --resume nowhere
evaluate --help
evaluate nowhere
evaluate --nothing
evaluate nowhere --batch-size many
predict --help
predict nowhere nowhere
info --help
info --nothing
detect --help
detect train --help
detect train fashion_mnist
detect train --schedule.step 3
detect evaluate --help
detect evaluate nowhere
detect predict --help
detect predict nowhere nowhere
detect export --help
detect export nowhere a.onnx
export --help
export nowhere a.onnx
export nowhere a.onnx --features --softmax
benchmark --help
benchmark operator --help
benchmark operator --nothing
nothing
"""


def imports_of(body):
    """The modules that are imported outside functions."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
        elif not isinstance(node, ast.FunctionDef):
            yield from imports_of(ast.iter_child_nodes(node))


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.name)
def test_parsers_import_neither_halonet_nor_a_library(path):
    names = set(imports_of(ast.parse(path.read_text()).body))
    assert {name.partition(".")[0] for name in names} <= ALLOWED
    assert not {name for name in names if name.startswith("halonet_cli.run")}


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("run/*.py")), ids=lambda path: path.name)
def test_commands_import_what_they_need_at_the_top(path):
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    inside = [node for function in functions for node in ast.walk(function)]
    assert not [node.lineno for node in inside if isinstance(node, ast.Import | ast.ImportFrom)]


def test_every_command_names_a_function():
    def runs(parser):
        for command in parser.commands.values():
            yield from runs(command) if command.commands else [command.get_default("run")]

    for run in runs(make_parser()):
        module, _, function = run.partition(":")
        body = ast.parse(PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py").read_text()).body
        assert function in {node.name for node in body if isinstance(node, ast.FunctionDef)}, run


def test_help_lists_and_mistakes_import_neither_halonet_nor_pytorch():
    program = f"""
import sys
from halonet_cli.main import main
for line in {QUICK.strip().splitlines()!r}:
    try:
        status = main(line.split())
    except SystemExit as stop:
        status = stop.code
    expected = 0 if line.startswith("--") or "--help" in line or line in ("recipes", "recipes --json") else 2
    assert status == expected, (line, status)
    heavy = {{"halonet", "torch", "timm", "numpy", "pydantic"}} & set(sys.modules)
    assert not heavy, (line, heavy)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    mistakes = done.stderr.splitlines()
    assert all(line.startswith("halonet: ") for line in mistakes)
    assert len(mistakes) == sum(1 for line in QUICK.strip().splitlines() if "--help" not in line) - 4
