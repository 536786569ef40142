"""The lock on a run folder: one process writes into it, and the system releases the lock when that process ends."""

import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from halonet.engine.files import explain_full_disk, is_disk_full
from halonet.errors import UserError, UserNote

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK_FILE = ".lock"
_held: set[int] = set()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder; a folder that did not exist is made, and removed again if it stays empty.

    Without file locks (Windows, some network file systems), a `UserNote` warning says that nothing keeps a second
    process out.

    Raises:
        UserError: Another process holds the lock, the folder cannot be made or written to, or the disk is full.
    """
    made = [each for each in (folder, *folder.parents) if not os.path.lexists(each)]
    try:
        with explain_full_disk(folder, "make room, then run the command again"):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                descriptor = _acquire(folder)
            except (OSError, ValueError) as error:  # a ValueError if the name holds NUL
                if is_disk_full(error) or isinstance(error, UserError):
                    raise
                reason = getattr(error, "strerror", None) or error
                raise UserError(f"cannot write into run folder {folder}: {reason}") from error
        try:
            yield
        finally:
            if descriptor in _held:
                _held.discard(descriptor)
                # Removed while the lock is held, so that it cannot be the next holder's file.
                (folder / LOCK_FILE).unlink(missing_ok=True)
                os.close(descriptor)
    finally:
        for each in made:
            with suppress(OSError, ValueError):
                each.rmdir()


def _acquire(folder: Path) -> int:
    """Lock the lock file and write the owner into it; return its descriptor, or -1 without file locks."""
    path = folder / LOCK_FILE
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
        except (BlockingIOError, PermissionError) as error:
            owner = _read_owner(descriptor)
            os.close(descriptor)
            raise UserError(f"{folder} is in use by {owner}") from error
        except OSError as error:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            note = f"{folder} cannot be locked here ({error.strerror}): let no other process train into it"
            warnings.warn(UserNote(note), stacklevel=5)
            return -1
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                break
        os.close(descriptor)  # its last holder removed it after we had opened it
    _held.add(descriptor)
    with suppress(OSError):  # the lock also holds on a full disk
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode())
    return descriptor


def _lock(descriptor: int) -> None:
    if fcntl is None:
        raise OSError(0, "this system has no file locks")
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _read_owner(descriptor: int) -> str:
    for _ in range(20):
        process, _, host = os.pread(descriptor, 300, 0).decode(errors="replace").strip().partition(" ")
        if process:
            break
        time.sleep(0.05)  # the owner has the lock, and is about to write
    else:
        return "another process: wait until it ends"
    if host == socket.gethostname():
        return f"process {process}: wait until it ends, or stop it with kill {process}"
    return f"process {process} on {host}: wait until it ends, or stop it there"


def _forget_after_fork() -> None:
    """Drop the parent's locks: a process that loads images may outlive a killed parent by seconds."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
