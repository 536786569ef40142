import errno
import fcntl
import os
import signal
import socket
from pathlib import Path

import pytest

from halonet.engine import lock
from halonet.engine.lock import LOCK_FILE, locked
from halonet.errors import UserError, UserNote


def test_a_locked_folder_is_refused_with_its_owner(tmp_path: Path):
    with locked(tmp_path):
        message = rf"{tmp_path} is in use by process {os.getpid()}: .* kill {os.getpid()}"
        with pytest.raises(UserError, match=message), locked(tmp_path):
            raise AssertionError("two processes hold one lock")
        assert (tmp_path / LOCK_FILE).exists()
    assert list(tmp_path.iterdir()) == []


def test_an_owner_on_another_machine_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with locked(tmp_path):
        monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
        message = rf"process {os.getpid()} on .*: wait until it ends, or stop it there"
        with pytest.raises(UserError, match=message), locked(tmp_path):
            pass


def test_children_of_a_killed_process_hold_no_lock(tmp_path: Path):
    read, write = os.pipe()
    holder = os.fork()
    if holder == 0:
        with locked(tmp_path):
            child = os.fork()
            if child == 0:
                signal.pause()
            os.write(write, str(child).encode())
            signal.pause()
    child = int(os.read(read, 20))
    try:
        with pytest.raises(UserError, match=f"in use by process {holder}"), locked(tmp_path):
            pass
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        assert (tmp_path / LOCK_FILE).exists()
        with locked(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_lock_file_removed_before_locking_is_reopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real, calls = fcntl.flock, []

    def replace_first(descriptor: int, operation: int) -> None:
        if not calls:
            (tmp_path / LOCK_FILE).unlink()
            (tmp_path / LOCK_FILE).touch()
        calls.append(descriptor)
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", replace_first)
    with locked(tmp_path):
        assert len(calls) == 2
        with pytest.raises(UserError, match="in use"), locked(tmp_path):
            pass


def test_folders_that_stay_empty_are_removed(tmp_path: Path):
    with locked(tmp_path / "runs" / "new"):
        pass
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "runs" / "new"):
        (tmp_path / "runs" / "new" / "recipe.yaml").touch()
    assert [path.name for path in (tmp_path / "runs" / "new").iterdir()] == ["recipe.yaml"]


def test_a_file_system_without_locks_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    message = f"{tmp_path} cannot be locked here .No locks available.: let no other process"
    with pytest.warns(UserNote, match=message), locked(tmp_path):
        assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(lock, "fcntl", None)
    with pytest.warns(UserNote, match="this system has no file locks"), locked(tmp_path):
        pass


@pytest.mark.parametrize("place", ["file/run", "file", "/proc/run", "a" * 5000, "a\0b"])
def test_a_place_that_cannot_hold_a_run_is_refused(tmp_path: Path, place: str):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"cannot write into run folder .*{place}: "), locked(tmp_path / place):
        pass
