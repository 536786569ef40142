"""Listing the files of a tar archive, with links followed within it."""

import posixpath
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from halonet.data.walk import HIDDEN, SEEN, SPECIAL, LeftOut, is_hidden, is_picture
from halonet.errors import UserError

LINK_LIMIT = 40  # links to follow to one file, Linux's own limit
REMEDY = "pack the files themselves, with tar --dereference --hard-dereference"


class Member(NamedTuple):
    """A file or a folder in an archive: its path, and its content's offset and size in bytes."""

    parts: tuple[str, ...]
    start: int = 0
    size: int = 0
    is_folder: bool = False


def read_members(path: Path, left_out: LeftOut) -> Iterator[Member]:
    """List the files and folders of an uncompressed tar file, treating tar files in it as folders.

    Args:
        path: The tar file.
        left_out: Counts what is skipped: hidden and system files, links to folders, pipes, sockets and devices.

    Yields:
        Visible folders and files. Of a file that was packed twice, the last version.

    Raises:
        UserError: The file is missing, damaged or compressed, or has a link to a file that is not in it.
    """
    if not path.is_file():
        raise UserError(f"tar file {path} does not exist")
    try:
        with tarfile.open(path, "r:") as archive:
            yield from _members(archive, (), 0, path.stat().st_size, str(path), left_out)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path} cannot be read as an uncompressed tar file of class folders with images: {error}"
        ) from error


def _members(
    archive: tarfile.TarFile, above: tuple[str, ...], offset: int, size: int, where: str, left_out: LeftOut
) -> Iterator[Member]:
    infos = {posixpath.normpath(info.name).lstrip("/"): info for info in archive}
    for name, info in infos.items():
        parts = (*above, *name.split("/"))
        if name == "." or info.name == "":
            continue
        if ".." in parts:
            raise UserError(f"{info.name} in {where} would lie outside of the archive: pack it again")
        if any(map(is_hidden, parts)):
            left_out[HIDDEN] += is_picture(name)
            continue
        target = _follow(name, infos, where)
        if info.isdir():
            yield Member(parts, is_folder=True)
        elif target.isdir():
            left_out[SEEN] += 1
        elif not target.isreg() or target.issparse():
            left_out[SPECIAL] += 1
        elif target.offset_data + target.size > size:
            raise UserError(f"{where} is truncated within {info.name}: pack or copy it again")
        elif name.lower().endswith(".tar") and not above:
            with tarfile.open(fileobj=archive.extractfile(target), mode="r:") as inner:
                folder = (*parts[:-1], parts[-1][: -len(".tar")])
                yield Member(folder, is_folder=True)
                start = offset + target.offset_data
                yield from _members(inner, folder, start, target.size, f"{info.name} in {where}", left_out)
        else:
            yield Member(parts, offset + target.offset_data, target.size)


def _follow(name: str, infos: dict[str, tarfile.TarInfo], where: str) -> tarfile.TarInfo:
    info = infos[name]
    for _ in range(LINK_LIMIT):
        if not (info.issym() or info.islnk()):
            return info
        # A symbolic link is relative to its own folder, a hard link to the top of the archive.
        target = posixpath.join(posixpath.dirname(name), info.linkname) if info.issym() else info.linkname.lstrip("/")
        target = posixpath.normpath(target)
        if target not in infos:
            raise UserError(f"link {name} in {where} leads to {info.linkname}, which is not in the archive: {REMEDY}")
        name, info = target, infos[target]
    raise UserError(f"link {name} in {where} leads to itself: {REMEDY}")
