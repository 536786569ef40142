"""Walking folders of images: links are followed once, hidden and system files are skipped and counted."""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from halonet.errors import UserError

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
# Picture formats that are not read: the user is informed that such files were left out.
OTHER_PICTURES = frozenset(
    (
        *(".apng", ".arw", ".avif", ".avifs", ".cr2", ".cr3", ".dib", ".dng", ".gif", ".heic", ".heif", ".hif", ".ico"),
        *(".j2k", ".jfif", ".jif", ".jp2", ".jpe", ".jxl", ".nef", ".orf", ".pbm", ".pgm", ".pict", ".pnm", ".ppm"),
        *(".psd", ".raf", ".raw", ".rw2", ".svg", ".tga", ".tif", ".tiff"),
    )
)
SYSTEM_NAMES = frozenset(
    ("$recycle.bin", "@eadir", "__macosx", "desktop.ini", "lost+found", "system volume information", "thumbs.db")
)
HIDDEN = "hidden and system files and folders"
BROKEN = "links that lead nowhere"
SEEN = "links to folders that were read already"
SPECIAL = "pipes, sockets and devices"

LeftOut = Counter[str]
"""How many entries were skipped, by reason or by the suffix of an unsupported picture format."""


class Entry(NamedTuple):
    """A file or a folder (or a link to one); `parts` is its path relative to the walked folder."""

    parts: tuple[str, ...]
    path: str
    is_folder: bool


def walk(folder: str | Path, left_out: LeftOut) -> Iterator[Entry]:
    """Walk a folder recursively, each real folder once, folders reached by links last.

    Args:
        folder: Where to start.
        left_out: Counts what is skipped: hidden and system files, broken links, pipes, sockets and devices.

    Yields:
        Files and folders, sorted by name within a folder, each folder before its content.

    Raises:
        UserError: A folder cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    folders: list[tuple[tuple[str, ...], str]] = [((), str(folder))]
    links: deque[tuple[tuple[str, ...], str]] = deque()
    while folders or links:
        parts, path = folders.pop() if folders else links.popleft()
        entries, identity = _read_folder(path)
        if identity in seen:
            left_out[SEEN] += 1
            continue
        seen.add(identity)
        if parts:
            yield Entry(parts, path, True)
        inner_folders = []
        for entry in entries:
            inner = (*parts, entry.name)
            if is_hidden(entry.name):
                left_out[HIDDEN] += is_picture(entry.name) or _holds_pictures(entry)
            elif is_kind(entry.is_dir):
                (links if entry.is_symlink() else inner_folders).append((inner, entry.path))
            elif is_kind(entry.is_file):
                yield Entry(inner, entry.path, False)
            else:
                left_out[SPECIAL if os.path.exists(entry.path) else BROKEN] += 1
        folders += reversed(inner_folders)


def is_hidden(name: str) -> bool:
    """Whether a name is that of a hidden file, or of one that an operating system creates."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def is_image_name(name: str) -> bool:
    """Whether a name has the suffix of a supported image format."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def is_picture(name: str) -> bool:
    """Whether a name has the suffix of any picture format."""
    return is_image_name(name) or os.path.splitext(name)[1].lower() in OTHER_PICTURES


def count_other_picture(name: str, left_out: LeftOut) -> None:
    """Count a file if it is a picture of an unsupported format."""
    suffix = os.path.splitext(name)[1].lower()
    if suffix in OTHER_PICTURES:
        left_out[suffix] += 1


def describe_left_out(left_out: LeftOut) -> str:
    """Describe what was skipped and why; "" if nothing was."""
    reasons = [f"{reason} ({left_out[reason]})" for reason in (HIDDEN, BROKEN, SEEN, SPECIAL) if left_out[reason]]
    suffixes = {suffix: count for suffix, count in sorted(left_out.items()) if suffix in OTHER_PICTURES}
    if suffixes:
        counts = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.items())
        reasons.append(f"pictures of other formats ({counts}; convert them to .png or .jpg to use them)")
    return "; ".join(reasons)


def _read_folder(path: str) -> tuple[list[os.DirEntry[str]], tuple[int, int]]:
    try:
        status = os.stat(path)
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name), (status.st_dev, status.st_ino)
    except OSError as error:
        raise UserError(f"folder {path} cannot be read ({error.strerror}): make it readable, or remove it") from error


def _holds_pictures(entry: os.DirEntry[str]) -> bool:
    """Whether to report a hidden folder: .git is not worth it, .ipynb_checkpoints with images is."""
    if entry.name.lower() in SYSTEM_NAMES or not is_kind(entry.is_dir):
        return is_kind(entry.is_dir)
    try:
        with os.scandir(entry.path) as entries:
            return any(is_picture(inner.name) for inner in entries)
    except OSError:
        return False


def is_kind(question: Callable[[], bool]) -> bool:
    """Call `entry.is_file` or `entry.is_dir`; a link that leads to itself is neither."""
    try:
        return question()
    except OSError:
        return False
