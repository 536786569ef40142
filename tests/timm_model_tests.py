"""Runs timm's own tests of models, from its source distribution, on rows of this package.

    python -m tests.timm_model_tests

The tests of TorchScript are left out: it is deprecated, and `torch.jit.script` of our networks is refused in words.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROWS = ("tiny28", "mini32", "resnet50_twin", "r50se_halo_b8")


def pytest_configure() -> None:
    """As a plugin of timm's tests, before they are collected: list our rows instead of all models."""
    import timm

    import halonet.models.pretrained

    names = [halonet.models.pretrained.TIMM_PREFIX + row for row in ROWS]
    trained = timm.list_models("halonet_paper_*", pretrained=True)

    def list_models(filter: Any = "", module: Any = "", pretrained: bool = False, **options: Any) -> list[str]:
        if filter:  # by the names of timm's own architectures
            return []
        return [name for name in names if not pretrained or any(each.startswith(f"{name}.") for each in trained)]

    timm.list_models = list_models
    timm.list_pretrained = lambda *_, **__: []


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        name = f"timm-{version('timm')}"
        download = [sys.argv[1] if sys.argv[1:] else "pip", "download", "--quiet", "--no-deps", "--no-binary", "timm"]
        subprocess.run([*download, "--dest", folder, name.replace("-", "==")], check=True)
        with tarfile.open(Path(folder) / f"{name}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
        options = ["-q", "-p", "timm_model_tests", "-k", "not torchscript", "-W", "ignore", "-o", "addopts="]
        command = [sys.executable, "-m", "pytest", *options, "tests/test_models.py"]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "HF_HUB_OFFLINE": "1"}
        return subprocess.run(command, cwd=Path(folder) / name, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
