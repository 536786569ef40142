import errno
import resource
from pathlib import Path

import pytest
import torch

from halonet.engine.files import (
    PICTURES,
    check_output_file,
    check_output_folder,
    explain_full_disk,
    remove_partial_files,
    write_atomically,
)
from halonet.errors import UserError


@pytest.fixture
def previous(tmp_path: Path) -> Path:
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"previous")
    return path


def assert_untouched(path: Path) -> None:
    assert path.read_bytes() == b"previous"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_file_is_replaced_and_its_folder_made(tmp_path: Path):
    path = tmp_path / "new" / "file"
    write_atomically(path, lambda file: file.write(b"one"))
    write_atomically(path, lambda file: file.write(b"two"))
    assert path.read_bytes() == b"two"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_write_error_leaves_the_previous_file(previous: Path):
    def write(file):
        file.write(b"half")
        raise KeyError("no")

    with pytest.raises(KeyError):
        write_atomically(previous, write)
    assert_untouched(previous)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_previous_file(previous: Path, number: int):
    def write(file):
        file.write(b"half")
        raise OSError(number, "no space")

    with pytest.raises(UserError, match=r"no space left to write .*last.ckpt: the previous last.ckpt is untouched"):
        write_atomically(previous, write)
    assert_untouched(previous)


def test_a_size_limit_in_torch_save_counts_as_a_full_disk(previous: Path):
    checkpoint = {f"weight {number}": torch.zeros(200_000) for number in range(4)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(UserError, match="no space left"):
            write_atomically(previous, lambda file: torch.save(checkpoint, file))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_untouched(previous)


def test_unrelated_errors_are_not_a_full_disk(tmp_path: Path):
    with pytest.raises(PermissionError), explain_full_disk(tmp_path):
        raise PermissionError(errno.EACCES, "no")
    with pytest.raises(RuntimeError, match="shapes"), explain_full_disk(tmp_path):
        raise RuntimeError("shapes")


def test_the_replaced_file_is_kept_under_another_name(previous: Path):
    write_atomically(previous, lambda file: file.write(b"new"), previous=previous.with_name("previous.ckpt"))
    assert previous.read_bytes() == b"new"
    assert previous.with_name("previous.ckpt").read_bytes() == b"previous"


def test_nested_explanations_combine_file_and_remedy(tmp_path: Path):
    with (
        pytest.raises(UserError, match=f"no space left to write {tmp_path / 'inner'}: do the one thing$"),
        explain_full_disk(tmp_path / "outer", lambda: "do the one thing"),
        explain_full_disk(tmp_path / "inner", "do the other"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_half_written_files_are_removed(tmp_path: Path):
    (tmp_path / "checkpoints").mkdir()
    for name in (".result.json.partial", "checkpoints/.best.ckpt.partial", "checkpoints/last.ckpt"):
        (tmp_path / name).touch()
    remove_partial_files(tmp_path)
    assert [path.name for path in tmp_path.rglob("*.*")] == ["last.ckpt"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/a.png", "there is no folder .*no; make it first"),
        ("file/a.png", "file is a file, not a folder"),
        ("/proc/a.png", "cannot write /proc/a.png: /proc: "),
        ("a.gif", "its name must end in one of .png, .svg, .pdf"),
        ("folder.png", "it is a folder; name a file in it"),
        (f"{'a' * 250}.png", "File name too long; name another file"),
        ("a\0.png", "embedded null byte; name another file"),
    ],
)
def test_an_unwritable_file_is_refused(tmp_path: Path, name: str, message: str):
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=message):
        check_output_file(tmp_path / name, PICTURES)
    check_output_file(tmp_path / "new.png", PICTURES)
    check_output_file(tmp_path / "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file", "file is a file, not"),
        ("file/a/b", "file is a file, not"),
        ("/proc/a/b", "cannot write /proc/a/b: "),
        ("a" * 300, "File name too long; name another place"),
        ("a\0b", "embedded null byte; name another place"),
    ],
)
def test_an_unwritable_folder_is_refused(tmp_path: Path, name: str, message: str):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=message):
        check_output_folder(tmp_path / name)
    check_output_folder(tmp_path)
    check_output_folder(tmp_path / "new" / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_read_only_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(dir: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    for check in (check_output_file, check_output_folder):
        with pytest.raises(UserError, match="Read-only file system; name another place"):
            check(tmp_path / "a")
