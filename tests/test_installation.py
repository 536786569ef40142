"""Commands that change an installation start from the source it came from."""

import json
from pathlib import Path

import pytest

from halonet import installation

FOLDER = {"url": "file:///home/me/my%20clone", "dir_info": {}}
EDITABLE = {"url": "file:///home/me/my%20clone", "dir_info": {"editable": True}}
REPOSITORY = {"url": "https://example.org/halonet.git", "vcs_info": {"vcs": "git", "commit_id": "f6ecc6c"}}
PIP = "--force-reinstall --no-deps --no-cache-dir --no-binary halonet"
UV = "--reinstall-package halonet --no-cache --no-deps --no-binary halonet"
WHEEL = {"url": "file:///tmp/halonet-0.1.0-py3-none-any.whl", "archive_info": {}}


def installed(monkeypatch: pytest.MonkeyPatch, installer: str, origin: dict | None) -> None:
    files = {"INSTALLER": f"{installer}\n", "direct_url.json": None if origin is None else json.dumps(origin)}
    monkeypatch.setattr(installation, "_metadata", files.get)


@pytest.mark.parametrize(
    ("installer", "origin", "expected"),
    [
        ("pip", FOLDER, "pip install 'halonet[train] @ file:///home/me/my%20clone'"),
        ("pip", EDITABLE, "pip install -e '/home/me/my clone[train]'"),
        ("uv", EDITABLE, "uv pip install -e '/home/me/my clone[train]'"),
        ("pip", REPOSITORY, "pip install 'halonet[train] @ git+https://example.org/halonet.git@f6ecc6c'"),
        ("pip", WHEEL, "pip install 'halonet[train] @ file:///tmp/halonet-0.1.0-py3-none-any.whl'"),
    ],
)
def test_extra_is_installed_from_the_same_source(
    monkeypatch: pytest.MonkeyPatch, installer: str, origin: dict, expected: str
) -> None:
    installed(monkeypatch, installer, origin)
    assert installation.command_for_extra("train") == expected


@pytest.mark.parametrize(
    ("installer", "origin", "expected"),
    [
        ("pip", FOLDER, f"pip install {PIP} file:///home/me/my%20clone"),
        ("pip", REPOSITORY, f"pip install {PIP} git+https://example.org/halonet.git@f6ecc6c"),
        ("pip", {}, f"pip install {PIP} -e {installation.CLONE}"),
        ("uv", EDITABLE, f"uv pip install {UV} -e '/home/me/my clone'"),
        ("pip", WHEEL, "pip install --force-reinstall --no-deps --no-cache-dir . (in a clone of halonet's repository)"),
    ],
)
def test_rebuild_ignores_cached_wheels(
    monkeypatch: pytest.MonkeyPatch, installer: str, origin: dict, expected: str
) -> None:
    installed(monkeypatch, installer, origin)
    assert installation.command_to_rebuild() == expected


def test_source_is_the_clone_if_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "", None)
    assert installation.command_for_extra("train") == f"pip install -e '{installation.CLONE}[train]'"


def test_source_is_the_name_if_from_an_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed(monkeypatch, "pip", None)
    monkeypatch.setattr(installation, "CLONE", tmp_path)
    assert installation.command_for_extra("train") == "pip install 'halonet[train]'"
    assert installation.command_to_rebuild() == f"pip install {PIP} halonet"
