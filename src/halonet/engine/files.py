"""Files that are always complete, the old or the new one, even if writing is interrupted."""

import errno
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from halonet.complaints import shown
from halonet.console import printable
from halonet.errors import UserError

MOST_BYTES = 16 * 2**20  # of a JSON file: ImageNet-21k's names take 1 MiB, and stand up to three times in one
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

AGAIN = "make room, then run the command again"
PICTURES = (".png", ".svg", ".pdf")
"""The suffixes that a picture may have."""


class DiskFullError(UserError):
    """No space is left for a file.

    Args:
        path: The file.
        remedy: What the user should do.
    """

    def __init__(self, path: Path, remedy: str):
        previous = f"the previous {path.name} is untouched; " if path.is_file() else ""
        super().__init__(f"no space left to write {path}: {previous}{remedy}")
        self.path = path


def write_atomically(
    path: Path, write: Callable[[BinaryIO], object], remedy: str = AGAIN, *, previous: Path | None = None
) -> None:
    """Replace a file in one step.

    The content is written to `.NAME.partial` beside the target, so that renaming never crosses file systems, and
    reaches the disk before it gets the target's name.

    Args:
        path: The target; its folder is made.
        write: Writes the content.
        remedy: What the user should do about a full disk.
        previous: A new name for the file that is replaced; None removes it. A process that is killed between the two
            renamings leaves it under this name, and nothing under the target's.

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
    """Remove half-written files of killed processes in a folder that no other process writes into."""
    for path in [*folder.glob(".*.partial"), *folder.glob("*/.*.partial")]:
        path.unlink(missing_ok=True)


@contextmanager
def explain_full_disk(path: Path, remedy: str | Callable[[], str] = AGAIN) -> Iterator[None]:
    """Re-raise disk-full errors as `DiskFullError`.

    When these are nested, the innermost names the file and the outermost the remedy.

    Args:
        path: The file that is being written.
        remedy: What the user should do, or a function that returns it when it is needed.

    Raises:
        DiskFullError: The disk is full, a quota is used up, or a limit on the file size is reached.
    """
    try:
        yield
    except (OSError, RuntimeError, DiskFullError) as error:
        if isinstance(error, DiskFullError):
            path = error.path
        elif not is_disk_full(error):
            raise
        raise DiskFullError(path, remedy if isinstance(remedy, str) else remedy()) from error


@contextmanager
def silence_full_disk_in_threads() -> Iterator[None]:
    """Keep threads from printing disk-full errors: TensorBoard's raises them again at the next write or flush."""
    before = threading.excepthook

    def report(failure: threading.ExceptHookArgs) -> None:
        if failure.exc_value is None or not is_disk_full(failure.exc_value):
            before(failure)

    threading.excepthook = report
    try:
        yield
    finally:
        threading.excepthook = before


def check_output_file(path: str | Path, suffixes: Sequence[str] = ()) -> None:
    """Refuse an output file that cannot be written, before any work is done; leaves nothing behind.

    Args:
        path: The file; it may exist, its folder must.
        suffixes: The allowed suffixes; if empty, any.

    Raises:
        UserError: The suffix is wrong, the path is a folder, or its folder does not exist or cannot be written to.
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
    except (OSError, ValueError) as error:  # a ValueError if the name holds NUL
        raise UserError(f"cannot write {path}: {_reason(error)}; name another file") from error
    _probe(parent, path)


def check_output_folder(path: str | Path) -> None:
    """Refuse an output folder that cannot be made or written to, before any work is done; leaves nothing behind.

    Raises:
        UserError: The path is a file, lies under one, or cannot be written to.
    """
    path = Path(path)
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):  # the second is explained below, with the name of the file
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
    """The name of a file until it is complete."""
    return path.with_name(f".{path.name}.partial")


def _probe(folder: Path, path: Path) -> None:
    """Make a temporary file in a folder."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise DiskFullError(path, AGAIN) from error
        raise UserError(f"cannot write {path}: {folder}: {error.strerror}; name another place") from error


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error or one of its causes is a full disk; torch.save raises a RuntimeError from it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


def _fsync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the system can (Windows cannot open folders)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def absolute(path: str) -> str:
    """Make the path of a file or folder absolute; what does not exist keeps its name."""
    found = Path(path)
    with suppress(RuntimeError):  # there is no such user, as reading the file will say
        found = found.expanduser()
    return str(found.resolve()) if os.path.exists(found) else path


def picture_name(number: int, image: str | Path) -> str:
    """Name the picture of an image, NUMBER_STEM.png."""
    stem = printable(Path(image).stem)[:60]  # a name may have 255 bytes, and escapes are longer
    return f"{number:04}_{stem}.png"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds keys and values.

    Raises:
        UserError: It cannot be read, is too large or holds something else.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > MOST_BYTES:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes, but must have at most {MOST_BYTES:,}")
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a JSON file: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds {shown(values)}, but must hold keys and values")
    return values
