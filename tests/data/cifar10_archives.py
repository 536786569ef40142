"""Small archives in every published format of CIFAR-10."""

import dataclasses
import hashlib
import io
import json
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from halonet.data.classification import cifar10

PER_BATCH = 20
COUNTS = {"train": 5 * PER_BATCH, "test": PER_BATCH}
PYTHON, BINARY = cifar10.FORMS


def make_split(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Random pixels [images, 32, 32, 3] and balanced labels."""
    generator = np.random.default_rng(sorted(COUNTS).index(split))
    pixels = generator.integers(0, 256, (COUNTS[split], 32, 32, 3), np.uint8)
    return pixels, generator.permutation(np.arange(COUNTS[split]) % 10)


def as_rows(pixels: np.ndarray) -> np.ndarray:
    """Channel-first rows of 3,072 values."""
    return np.stack([np.concatenate([image[:, :, channel].ravel() for channel in range(3)]) for image in pixels])


def pickle_text(text: str) -> bytes:
    return b"U" + bytes([len(text)]) + text.encode()


def python_batch(pixels: np.ndarray, labels: np.ndarray, array: str = "numpy.core.multiarray\n_reconstruct") -> bytes:
    """A batch as Python 2 pickled it for the original archive."""
    content = as_rows(pixels).tobytes()
    number = lambda value: b"J" + struct.pack("<i", value)  # noqa: E731
    dtype = (
        b"cnumpy\ndtype\n" + pickle_text("u1") + number(0) + number(1) + b"\x87R"
        + b"(" + number(3) + pickle_text("|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    )  # fmt: skip
    state = b"(" + number(1) + number(len(pixels)) + number(3072) + b"\x86" + dtype + b"\x89"
    state += b"T" + struct.pack("<i", len(content)) + content + b"t"
    data = f"c{array}\n".encode() + b"cnumpy\nndarray\n" + number(0) + b"\x85" + pickle_text("b") + b"\x87R"
    listed = b"](" + b"".join(number(int(label)) for label in labels) + b"e"
    return (
        b"\x80\x02}(" + pickle_text("batch_label") + pickle_text("a batch")
        + pickle_text("labels") + listed + pickle_text("data") + data + state + b"bu."
    )  # fmt: skip


def binary_batch(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    return np.concatenate([labels[:, None].astype(np.uint8), as_rows(pixels)], axis=1).tobytes()


def write_batches(folder: Path, form: cifar10.Form) -> Path:
    """Write the unpacked batches of a format into a folder; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    make = python_batch if form is PYTHON else binary_batch
    for split, names in cifar10.BATCHES.items():
        parts = (np.array_split(part, len(names)) for part in make_split(split))
        for name, pixels, labels in zip(names, *parts, strict=True):
            (folder / f"{name}{form.suffix}").write_bytes(make(pixels, labels))
    return folder


def write_archive(root: Path, form: cifar10.Form) -> Path:
    """Write the archive of a format into `root`; returns its path."""
    folder = write_batches(root / "unpacked" / form.folder, form)
    with tarfile.open(root / form.archive, "w:gz") as archive:
        archive.add(folder, form.folder)
    folder.parent.rename(root / "elsewhere")
    return root / form.archive


def write_parquet(root: Path, form: str = "PNG", column: str = "image", names: tuple[str, ...] | None = None) -> Path:
    """Write parquet files as Hugging Face does; returns their folder."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    root.mkdir(parents=True, exist_ok=True)
    for split in COUNTS:
        rows = []
        for image in make_split(split)[0]:
            file = io.BytesIO()
            Image.fromarray(image).save(file, form)
            rows.append({"bytes": file.getvalue(), "path": None})
        table = pyarrow.table({column: rows, "label": make_split(split)[1]})
        about = {"info": {"features": {"label": {"names": list(names or cifar10.CLASS_NAMES)}}}}
        parquet.write_table(
            table.replace_schema_metadata({"huggingface": json.dumps(about)}), root / f"{split}.parquet"
        )
    return root


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def expect_small_archives(monkeypatch: pytest.MonkeyPatch, root: Path | None = None) -> None:
    """Make the reader expect our counts, and the checksums of the files in `root`."""
    monkeypatch.setattr(cifar10, "NUM_IMAGES", COUNTS)
    forms = []
    for form in cifar10.FORMS:
        changes = {"md5": {}}
        if root is not None and (root / form.archive).exists():
            changes["archive_md5"] = md5(root / form.archive)
        forms.append(dataclasses.replace(form, **changes))
    monkeypatch.setattr(cifar10, "FORMS", tuple(forms))
