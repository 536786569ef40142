"""CIFAR-10 from a folder, in any of its published formats; nothing is downloaded."""

import contextlib
import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from halonet.data.classification.cifar10_formats import (
    CLASS_NAMES,
    HOME_PAGE,
    Contents,
    parse_pickle,
    parse_records,
    read_parquet,
    require,
)
from halonet.errors import UserError

NAME = "cifar10"
NUM_IMAGES = {"train": 50_000, "test": 10_000}
BATCHES = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}
# A batch of 10,000 images is 31 MB in either original form.
FILE_LIMIT = 64 * 2**20
PARQUET_FOLDERS = ("", "data", "plain_text")


class Images(NamedTuple):
    """One split in memory.

    Attributes:
        pixels: uint8 [images, rows, columns, 3].
        labels: int64 [images].
        variant: "CIFAR-10", or "CIFAR-10 (JPEG)" if the images were lossily compressed.
        checksum: SHA-256 of pixels and labels, hexadecimal.
    """

    pixels: np.ndarray
    labels: np.ndarray
    variant: str
    checksum: str


class Cifar10:
    """A split of CIFAR-10: color photographs of 32 x 32 pixels in ten classes (Krizhevsky, 2009).

    Takes the original archives, binary or python, packed or unpacked, and parquet files with image bytes and labels.
    All images are kept in memory, 3 KiB each, and shared by all instances.

    Args:
        root: The folder that holds the data set.
        split: "train" (50,000 images) or "test" (10,000).

    Attributes:
        variant: See `Images`.
        checksum: See `Images`.

    Raises:
        UserError: The folder does not hold the data set, or a file is damaged or not CIFAR-10's.
    """

    def __init__(self, root: Path | None, split: str) -> None:
        if root is None:
            raise UserError(f"data set {NAME} needs the folder that holds it: give it with --data.root DIR")
        files, read = _find(root, split)
        self._images = _read(read, tuple(files), tuple(_fingerprint(path) for path in files), split)
        self.class_names: list[str] = list(CLASS_NAMES)
        self.labels: list[int] = self._images.labels.tolist()
        self.variant = self._images.variant
        self.checksum = self._images.checksum

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return an image of mode "RGB" and its label."""
        return Image.fromarray(self._images.pixels[index]), self.labels[index]


Reader = Callable[[tuple[Path, ...], str], tuple[np.ndarray, np.ndarray, str]]
"""Reads a split from files: pixels, labels and variant."""


@lru_cache(maxsize=2)
def _read(read: Reader, files: tuple[Path, ...], fingerprints: tuple[Any, ...], split: str) -> Images:
    """Read and check a split; a changed file has another fingerprint, so it is read again."""
    pixels, labels, variant = read(files, split)
    where = str(files[0].parent)
    require(len(labels) == NUM_IMAGES[split], where, f"{len(labels):,} {split} images, not {NUM_IMAGES[split]:,}")
    require(set(labels.tolist()) <= set(range(len(CLASS_NAMES))), where, "labels beyond 0 to 9")
    counts = np.bincount(labels, minlength=len(CLASS_NAMES)).tolist()
    require(len(set(counts)) == 1, where, f"classes of {min(counts):,} to {max(counts):,} images, not equal")
    digest = hashlib.sha256(pixels.tobytes())
    digest.update(labels.astype("<i8").tobytes())
    return Images(pixels, labels, variant, digest.hexdigest())


def _fingerprint(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _find(root: Path, split: str) -> tuple[list[Path], Reader]:
    """Find the files of a split and the function that reads them."""
    with contextlib.suppress(RuntimeError):  # of an unknown user: then it is not a folder either
        root = root.expanduser()
    if not os.path.isdir(root):
        raise UserError(f"data.root {root} is not a folder: give the folder that holds CIFAR-10")
    for form in FORMS:
        for folder in (root / form.folder, root):
            files = [folder / f"{batch}{form.suffix}" for batch in BATCHES[split]]
            missing = [path.name for path in files if not path.is_file()]
            if not missing:
                return files, form.read_files
            if len(missing) < len(files):
                raise UserError(f"{folder} lacks {', '.join(missing)}: unpack {form.archive} again")
        if (root / form.archive).is_file():
            return [root / form.archive], form.read_archive
    for folder in PARQUET_FOLDERS:
        files = sorted((root / folder).glob(f"{split}*.parquet"))
        if files:
            return files, _read_parquet
    names = ", ".join(name for form in FORMS for name in (form.archive, f"{form.folder}/"))
    raise UserError(
        f"{root} does not hold the {split} images of CIFAR-10: it needs one of {names}, or {split}*.parquet. "
        f"Get the original from {HOME_PAGE} (162 MiB)"
    )


@dataclass(frozen=True)
class Form:
    """One of the two original formats, as archive or unpacked.

    Attributes:
        folder: The folder in the archive.
        archive: The archive's file name.
        archive_md5: The archive's published checksum.
        suffix: The suffix of a batch's file.
        parse: Reads a batch, given its file's bytes and its name for messages.
        md5: Published checksums of the batches, by file name.
    """

    folder: str
    archive: str
    archive_md5: str
    suffix: str
    parse: Callable[[bytes, str], Contents]
    md5: dict[str, str] = field(default_factory=dict)

    def read_files(self, files: tuple[Path, ...], split: str) -> tuple[np.ndarray, np.ndarray, str]:
        """Read unpacked batches."""
        return self._parse_all((path.name, str(path), _read_bytes(path)) for path in files)

    def read_archive(self, files: tuple[Path, ...], split: str) -> tuple[np.ndarray, np.ndarray, str]:
        """Read the batches of a split from the archive, without unpacking it."""
        (archive,) = files
        _check_md5(_md5_of(archive), self.archive_md5, str(archive))
        wanted = [f"{batch}{self.suffix}" for batch in BATCHES[split]]
        found = {}
        try:
            with tarfile.open(archive, "r:gz") as members:
                for member in members:
                    name = Path(member.name).name
                    if member.isfile() and name in wanted and member.size <= FILE_LIMIT:
                        file = members.extractfile(member)
                        found[name] = file.read() if file else b""
        except (tarfile.TarError, OSError, EOFError) as error:
            raise UserError(f"{archive} cannot be unpacked ({error}): get it again from {HOME_PAGE}") from error
        if missing := [name for name in wanted if name not in found]:
            raise UserError(f"{archive} lacks {', '.join(missing)}: get it again from {HOME_PAGE}")
        return self._parse_all((name, f"{name} in {archive}", found[name]) for name in wanted)

    def _parse_all(self, files: Iterator[tuple[str, str, bytes]]) -> tuple[np.ndarray, np.ndarray, str]:
        """Check and parse batches, each given by its file name, its name for messages, and its content."""
        batches = []
        for name, where, content in files:
            if expected := self.md5.get(name):
                _check_md5(hashlib.md5(content, usedforsecurity=False).hexdigest(), expected, where)
            batches.append(self.parse(content, where))
        pixels, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        return pixels, labels, "CIFAR-10"


def _read_bytes(path: Path) -> bytes:
    size = path.stat().st_size
    if size > FILE_LIMIT:
        raise UserError(f"{path} has {size:,} bytes, more than a batch of CIFAR-10 can have: get it from {HOME_PAGE}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _md5_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _check_md5(found: str, expected: str, name: str) -> None:
    if found != expected:
        raise UserError(
            f"{name} has the MD5 checksum {found}, but the published one is {expected}: the file is damaged, truncated "
            f"or not the right one; get it again from {HOME_PAGE}"
        )


def _read_parquet(files: tuple[Path, ...], split: str) -> tuple[np.ndarray, np.ndarray, str]:
    return read_parquet(files, NUM_IMAGES[split])


FORMS = (
    Form(
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
        "",
        parse_pickle,
        {
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
        },
    ),
    Form("cifar-10-batches-bin", "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", ".bin", parse_records),
)
