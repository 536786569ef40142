"""Files that are either the old one or the whole new one, whatever happens while they are written."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from halonet.errors import UserError

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


RESUME = "make room, then continue a run with --resume RUN_DIR"


def write_atomically(path: Path, write: Callable[[BinaryIO], object], remedy: str = RESUME) -> None:
    """Replace a file in one step.

    The new file grows beside the target (`.NAME.partial`), so that the last step never crosses a file system,
    and reaches the disk before it takes the target's name.

    Args:
        path: The target; its folder is made.
        write: Writes the content.
        remedy: What to do about a full disk.

    Raises:
        UserError: The disk is full. The previous file is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with explain_full_disk(path, remedy):
        try:
            with partial.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
            _fsync_folder(path.parent)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def explain_full_disk(path: Path, remedy: str = RESUME) -> Iterator[None]:
    """Turn the operating system's word for a full disk into one for people.

    Args:
        path: What is being written.
        remedy: What to do.

    Yields:
        Nothing.

    Raises:
        UserError: The body met a full disk, a spent quota or a limit on the size of a file.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if not _is_disk_full(error):
            raise
        previous = f"the previous {path.name} is untouched; " if path.is_file() else ""
        raise UserError(f"no space left to write {path}: {previous}{remedy}") from error


def _is_disk_full(error: BaseException | None) -> bool:
    """Look through the chain too: torch.save reports a failed write as a RuntimeError of its own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


def _fsync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the system can (Windows cannot open folders)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
