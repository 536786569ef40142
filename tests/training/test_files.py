import errno
import resource
from pathlib import Path

import pytest
import torch

from halonet.errors import UserError
from halonet.training.files import explain_full_disk, write_atomically


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


def test_an_error_while_writing_leaves_the_previous_file(previous: Path):
    def write(file):
        file.write(b"half")
        raise KeyError("no")

    with pytest.raises(KeyError):
        write_atomically(previous, write)
    assert_untouched(previous)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_previous_file_and_says_so(previous: Path, number: int):
    def write(file):
        file.write(b"half")
        raise OSError(number, "no space")

    with pytest.raises(UserError, match=r"no space left to write .*last.ckpt: the previous last.ckpt is untouched"):
        write_atomically(previous, write)
    assert_untouched(previous)


def test_a_real_limit_met_within_torch_save_is_told_as_a_full_disk(previous: Path):
    checkpoint = {f"weight {number}": torch.zeros(200_000) for number in range(4)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(UserError, match="no space left"):
            write_atomically(previous, lambda file: torch.save(checkpoint, file))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_untouched(previous)


def test_other_errors_are_not_called_a_full_disk(tmp_path: Path):
    with pytest.raises(PermissionError), explain_full_disk(tmp_path):
        raise PermissionError(errno.EACCES, "no")
    with pytest.raises(RuntimeError, match="shapes"), explain_full_disk(tmp_path):
        raise RuntimeError("shapes")
