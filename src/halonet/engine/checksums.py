"""Checksums in the files of a run, which detect damage when a file is read.

They are CRC-32, which misses one damaged file in four billion and is the fastest checksum of the standard library
(0.03 s for 200 MB, where SHA-256 takes 0.10 s). They do not protect against deliberate changes.
"""

import io
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from halonet.errors import UserError

KEY = "checksum"
"""Key of the checksum in the metadata of a safetensors file."""

# `torch.save` writes a zip file; the comment at its end holds the checksum of everything before it.
_MARK = b"halonet crc32 "
_COMMENT = len(_MARK) + 8
_END = 22  # bytes of the zip file's last record without the comment; its last two are the comment's length
_CHUNK = 2**22


class DamagedFileError(UserError):
    """A file is not as it was written."""


class _Summing(io.RawIOBase):
    """Passes on what is written and computes its checksum."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.name = getattr(file, "name", "")
        self.sum = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.sum = zlib.crc32(data, self.sum)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def save_with_checksum(value: Any, file: BinaryIO) -> None:
    """Do what `torch.save` does and add a checksum, which `torch.load` ignores.

    Args:
        value: What to save.
        file: Open for writing, at its beginning.
    """
    summing: Any = _Summing(file)
    torch.save(value, summing)
    file.seek(-2, os.SEEK_END)
    file.write(_COMMENT.to_bytes(2, "little") + _MARK + b"%08x" % summing.sum)


def check_file(path: Path) -> None:
    """Check a file that `save_with_checksum` or `torch.save` wrote.

    A file without our checksum is checked by those that `torch.save` writes for its parts, which `torch.load` ignores.

    Raises:
        DamagedFileError: The content is not what was written.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _COMMENT - _END))
        end = file.read()
        length, comment = end[_END - 2 : _END], end[_END:]
        has_end = end.startswith(b"PK\5\6")  # without a comment it comes later
        if not has_end and not comment.startswith(_MARK):
            _check_parts(path)
            return
        is_whole = has_end and length == _COMMENT.to_bytes(2, "little")
        sound = is_whole and comment == _MARK + b"%08x" % _sum(file, size - _COMMENT - 2)
    if not sound:
        raise DamagedFileError(f"{path} is damaged: its bytes do not give the checksum that it was written with")


def _sum(file: BinaryIO, size: int) -> int:
    """Compute the checksum of the first bytes of a file and of the comment length that `torch.save` wrote: 0."""
    file.seek(0)
    total = 0
    while size > 0:
        chunk = file.read(min(size, _CHUNK))
        total, size = zlib.crc32(chunk, total), size - len(chunk)
    return zlib.crc32(bytes(2), total)


def _check_parts(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        return  # reading it will fail with an explanation
    try:
        with zipfile.ZipFile(path) as parts:
            damaged = parts.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, UnicodeDecodeError, ValueError) as error:
        raise DamagedFileError(f"{path} is damaged: {error}") from error
    if damaged is not None:
        raise DamagedFileError(
            f"{path} is damaged: {damaged} in it does not give the checksum that it was written with"
        )


def checksum(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """Compute the checksum of the content of a safetensors file, as eight hexadecimal digits.

    Args:
        tensors: On the CPU.
        metadata: The entry `KEY` is left out.
    """
    total = 0
    for name, text in sorted(metadata.items()):
        if name != KEY:
            total = zlib.crc32(f"{name}={text}\n".encode(errors="surrogatepass"), total)
    for name, tensor in sorted(tensors.items()):
        total = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode(errors="surrogatepass"), total)
        total = zlib.crc32(tensor.contiguous().view(-1).view(torch.uint8).numpy().data, total)
    return f"{total:08x}"


def check_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Check what was read from a safetensors file; without a checksum everything passes.

    Args:
        path: The file, for the message.
        tensors: By name.
        metadata: With the checksum.

    Raises:
        DamagedFileError: The content is not what was written.
    """
    if KEY in metadata and metadata[KEY] != checksum(tensors, metadata):
        raise DamagedFileError(f"{path} is damaged: its tensors do not give the checksum that it was written with")
