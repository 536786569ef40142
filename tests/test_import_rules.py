import ast
import subprocess
import sys
from pathlib import Path

import pytest

import halonet

PACKAGE = Path(halonet.__file__).parent
ORDER = {
    "errors": -3,
    "complaints": -2,
    "rules": -1,
    "console": 0,
    "schemas": 0,
    "interrupts": 0,
    "installation": 0,
    "ops": 1,
    "layers": 2,
    "models": 3,
    "data": 4,
    "visual": 4,
    "recipes": 5,
    "engine": 6,
    "export": 6.5,
    "classification": 7,
    "detection": 7,
    "training": 8,
    "loading": 8,
    "benchmark": 9,
    "demo": 9,
}


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return names


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    folder = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if folder in ("__init__", "__main__"):
        return
    for name in imports_of(path):
        assert name.partition(".")[0] != "halonet_cli", f"{path} imports the command line"
        if name.partition(".")[0] != "halonet":
            continue
        part = name.split(".")[1] if "." in name else "__init__"
        if part == "__init__":
            assert ORDER[folder] > ORDER["models"], f"{path} imports the package's front from below"
        else:
            assert part == folder or ORDER[part] < ORDER[folder], f"{path} imports {name}"


BACKENDS = {
    "composite": ["composite.py"],
    "reference": ["reference.py"],
    "cpu": ["cpu.py"],
    "triton": [f"triton/{path.name}" for path in sorted((PACKAGE / "ops/attention/triton").glob("*.py"))],
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_do_not_import_one_another(backend):
    siblings = [f"halonet.ops.attention.{name}" for name in BACKENDS if name != backend]
    for file in BACKENDS[backend]:
        names = imports_of(PACKAGE / "ops" / "attention" / file)
        assert not [name for name in names if name.startswith(tuple(siblings))], file


@pytest.mark.parametrize(
    "front", sorted(PACKAGE.rglob("__init__.py")), ids=lambda path: str(path.parent.relative_to(PACKAGE.parent))
)
def test_no_exported_name_is_also_a_module(front):
    imports = [node for node in ast.walk(ast.parse(front.read_text())) if isinstance(node, ast.ImportFrom)]
    exported = {alias.asname or alias.name for node in imports for alias in node.names}
    modules = {path.stem for path in front.parent.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert not exported & modules


def test_import_halonet_is_light():
    heavy = [
        "lightning",
        "matplotlib",
        "pydantic",
        "tensorboard",
        "torchmetrics",
        "onnx",
        "gradio",
        "halonet.benchmark",
        "halonet.ops.attention.triton.launch",  # which would import Triton
    ]
    code = f"import halonet, sys; print([name for name in {heavy!r} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
