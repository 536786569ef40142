"""Files that are either the old one or the whole new one, whatever happens while they are written."""

import errno
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from halonet.console import printable
from halonet.errors import UserError

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

AGAIN = "make room, then run the command again"
PICTURES = (".png", ".svg", ".pdf")
"""The suffixes of a picture that is drawn as vectors or as pixels."""


class DiskFullError(UserError):
    """No space is left for a file.

    Args:
        path: The file.
        remedy: What to do.
    """

    def __init__(self, path: Path, remedy: str):
        previous = f"the previous {path.name} is untouched; " if path.is_file() else ""
        super().__init__(f"no space left to write {path}: {previous}{remedy}")
        self.path = path


def write_atomically(
    path: Path, write: Callable[[BinaryIO], object], remedy: str = AGAIN, *, previous: Path | None = None
) -> None:
    """Replace a file in one step.

    The new file grows beside the target (`.NAME.partial`), so that the last step never crosses a file system,
    and reaches the disk before it takes the target's name.

    Args:
        path: The target; its folder is made.
        write: Writes the content.
        remedy: What to do about a full disk.
        previous: What the file that is replaced is called from then on; None removes it. A process that is killed
            between the two steps leaves it under this name, and nothing under the target's.

    Raises:
        UserError: The disk is full. The previous file is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    with explain_full_disk(path, remedy):
        try:
            with partial.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            if previous is not None and path.exists():
                os.replace(path, previous)
            os.replace(partial, path)
            _fsync_folder(path.parent)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def remove_partial_files(folder: Path) -> None:
    """Remove what killed processes left half written; no other process may write into the folder.

    Args:
        folder: Its own files, and those in its folders.
    """
    for path in [*folder.glob(".*.partial"), *folder.glob("*/.*.partial")]:
        path.unlink(missing_ok=True)


@contextmanager
def explain_full_disk(path: Path, remedy: str | Callable[[], str] = AGAIN) -> Iterator[None]:
    """Turn the operating system's word for a full disk into one for people.

    Of several such bodies within one another, the innermost names the file, and the outermost the remedy.

    Args:
        path: What is being written.
        remedy: What to do, or what gives it when it is needed.

    Raises:
        DiskFullError: The body met a full disk, a spent quota or a limit on the size of a file.
    """
    try:
        yield
    except (OSError, RuntimeError, DiskFullError) as error:
        if isinstance(error, DiskFullError):
            path = error.path
        elif not is_disk_full(error):
            raise
        raise DiskFullError(path, remedy if isinstance(remedy, str) else remedy()) from error


def check_output_file(path: str | Path, suffixes: Sequence[str] = ()) -> None:
    """Refuse a file that cannot be written, before the work that it is to hold; nothing is left behind.

    Args:
        path: The file; it may exist, its folder must.
        suffixes: Those that it may have; none takes any.

    Raises:
        UserError: It has another suffix, it is a folder, there is no folder to hold it, or that folder takes no files.
    """
    path = Path(path)
    if suffixes and path.suffix not in suffixes:
        raise UserError(f"cannot write {path}: its name must end in one of {', '.join(suffixes)}")
    if os.path.isdir(path):
        raise UserError(f"cannot write {path}: it is a folder; name a file in it")
    parent = path.absolute().parent
    if os.path.exists(parent) and not os.path.isdir(parent):
        raise UserError(f"cannot write {path}: {path.parent} is a file, not a folder; name another place")
    if not os.path.isdir(parent):
        raise UserError(f"cannot write {path}: there is no folder {path.parent}; make it first, or name another")
    try:
        os.lstat(_partial(path))
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # a ValueError is of a name that holds NUL
        raise UserError(f"cannot write {path}: {_reason(error)}; name another file") from error
    _probe(parent, path)


def check_output_folder(path: str | Path) -> None:
    """Refuse a folder that cannot be made or written into, before the work; nothing is left behind.

    Args:
        path: The folder; it need not exist.

    Raises:
        UserError: It is a file, lies under one, or takes no files.
    """
    path = Path(path)
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):  # the second is told below, with the name of the file
        pass
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write into {path}: {_reason(error)}; name another place") from error
    nearest = next(each for each in (path.absolute(), *path.absolute().parents) if os.path.lexists(each))
    if not os.path.isdir(nearest):
        raise UserError(f"cannot write into {path}: {nearest} is a file, not a folder; name another place")
    _probe(nearest, path)


def _reason(error: OSError | ValueError) -> str:
    return str(getattr(error, "strerror", None) or error)


def _partial(path: Path) -> Path:
    """What a file is called until it is whole."""
    return path.with_name(f".{path.name}.partial")


def _probe(folder: Path, path: Path) -> None:
    """Make a file without a name, or one that is removed at once."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise DiskFullError(path, AGAIN) from error
        raise UserError(f"cannot write {path}: {folder}: {error.strerror}; name another place") from error


def is_disk_full(error: BaseException | None) -> bool:
    """Tell whether an error or one that it came from is a full disk: torch.save makes a RuntimeError of it."""
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


def absolute(path: str) -> str:
    """Name a file or folder from the root of the file system; the name of what does not exist stays as it is."""
    found = Path(path)
    with suppress(RuntimeError):  # there is no such user: reading the file says so
        found = found.expanduser()
    return str(found.resolve()) if os.path.exists(found) else path


def picture_name(number: int, image: str | Path) -> str:
    """Name the picture of an image, as NUMBER_STEM.png."""
    stem = printable(Path(image).stem)[:60]  # a name may have 255 bytes, and escapes are longer
    return f"{number:04}_{stem}.png"
