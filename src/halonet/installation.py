"""Where this installation came from, and the commands that change it."""

import json
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

CLONE = Path(__file__).parents[2]


def command_for_extra(extra: str) -> str:
    """Command that adds an extra, e.g. "train", to this installation from where the package came from."""
    return _install([], f"[{extra}]")


def command_to_rebuild() -> str:
    """Command that builds this installation again, without a cached wheel, which may lack the compiled kernel."""
    if _origin().get("url", "").endswith(".whl"):
        return "pip install --force-reinstall --no-deps --no-cache-dir . (in a clone of halonet's repository)"
    flags = {
        "pip": ["--force-reinstall", "--no-deps", "--no-cache-dir", "--no-binary", "halonet"],
        "uv": ["--reinstall-package", "halonet", "--no-cache", "--no-deps", "--no-binary", "halonet"],
    }
    return _install(flags[_installer()], "")


def _install(flags: list[str], extra: str) -> str:
    program = ["uv", "pip", "install"] if _installer() == "uv" else ["pip", "install"]
    return shlex.join([*program, *flags, *_source(extra)])


def _installer() -> str:
    return "uv" if (_metadata("INSTALLER") or "").strip() == "uv" else "pip"


def _source(extra: str) -> list[str]:
    """Arguments that name the installed folder, archive or repository, else the package by name."""
    origin = _origin()
    address = origin.get("url", "")
    if origin.get("dir_info", {}).get("editable"):
        return ["-e", url2pathname(urlsplit(address).path) + extra]
    if not origin and (CLONE / "pyproject.toml").is_file():  # run from a clone, not installed
        return ["-e", f"{CLONE}{extra}"]
    if "vcs_info" in origin:
        address = f"{origin['vcs_info']['vcs']}+{address}@{origin['vcs_info']['commit_id']}"
    if not address:
        return [f"halonet{extra}"]
    return [f"halonet{extra} @ {address}" if extra else address]


def _origin() -> dict[str, Any]:
    """PEP 610's record of where the package was installed from."""
    return json.loads(_metadata("direct_url.json") or "{}")


def _metadata(name: str) -> str | None:
    try:
        return distribution("halonet").read_text(name)
    except PackageNotFoundError:
        return None
