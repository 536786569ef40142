"""The file formats of CIFAR-10: batches in the binary and in the python format, and parquet files."""

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from halonet.data.images import decode_image
from halonet.errors import UserError
from halonet.installation import command_for_extra

HOME_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
PARQUET_LIMIT = 320 * 2**20  # bytes of a split's images, unpacked: as bitmaps they take 154 MB
IMAGE_COLUMNS = ("image", "img")

Contents = tuple[np.ndarray, np.ndarray]
"""Pixels uint8 [images, rows, columns, 3] and labels int64 [images]."""


def require(holds: bool, where: str, found: str) -> None:
    """Raise a UserError that a file has `found`, which CIFAR-10 does not have, unless `holds`."""
    if not holds:
        raise UserError(f"{where} is not CIFAR-10: it has {found}. Get the original from {HOME_PAGE}")


def _as_images(planes: np.ndarray) -> np.ndarray:
    """Convert channel-first rows of 3,072 values to [images, rows, columns, 3]."""
    return np.ascontiguousarray(planes.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))


def parse_records(content: bytes, name: str) -> Contents:
    """Read a batch in the binary format: for each image a label byte and 3,072 pixel bytes."""
    record = 1 + 3 * SIDE * SIDE
    if not content or len(content) % record:
        raise UserError(
            f"{name} has {len(content):,} bytes, not a multiple of {record:,}: it is truncated or not CIFAR-10"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    return _as_images(records[:, 1:]), records[:, 0].astype(np.int64)


def parse_pickle(content: bytes, name: str) -> Contents:
    """Read a batch in the python format: a pickled dictionary of an array and a list of labels."""
    try:
        batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        data, labels = batch[b"data"], np.array(batch[b"labels"], dtype=np.int64)
        pixels = data.rows() if isinstance(data, _Array) else None
    except UserError as error:
        raise UserError(f"{name} is refused: {error}") from error
    except Exception as error:  # arbitrary bytes make the parser raise arbitrary exceptions
        raise UserError(f"{name} is not a batch of CIFAR-10, or a truncated one: get it from {HOME_PAGE}") from error
    if pixels is None or labels.shape != (len(pixels),):
        raise UserError(f"{name} is not a batch of CIFAR-10: it needs one label for each row of pixels")
    return _as_images(pixels), labels


class _Dtype:
    """Replaces `numpy.dtype` in a pickle."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Ignore the byte order, which single bytes do not have."""


class _Array:
    """Replaces `numpy.ndarray` in a pickle; holds the bytes of a uint8 matrix of 3,072 columns."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, content = state
        columns = 3 * SIDE * SIDE
        sound = isinstance(dtype, _Dtype) and dtype.code in ("u1", b"u1") and not is_fortran
        if not sound or not isinstance(content, bytes) or shape != (len(content) // columns, columns):
            raise UserError(f"its array is not a uint8 matrix of {columns:,} columns")
        self._content = content

    def rows(self) -> np.ndarray:
        """The pixels, uint8 [images, 3072]."""
        return np.frombuffer(self._content, np.uint8).reshape(-1, 3 * SIDE * SIDE)


class _Unpickler(pickle.Unpickler):
    """Builds dictionaries, lists, bytes and replacements for NumPy arrays; nothing else is ever called."""

    def find_class(self, module: str, name: str) -> Any:
        """Replace the three NumPy names that the original files use; raises UserError for any other name."""
        replacements = {
            ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _Dtype,
        }
        if (module, name) not in replacements:
            raise UserError(f"it asks for {module}.{name}, but the files of CIFAR-10 need only NumPy arrays")
        return replacements[module, name]


def read_parquet(files: tuple[Path, ...], num_images: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Read parquet files as Hugging Face writes them, with a column of encoded images and a column of labels."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"reading {files[0]} needs the package 'pyarrow': {command_for_extra('streaming')}") from error
    encoded, labels = [], []
    for path in files:
        try:
            table = parquet.ParquetFile(path)
            column = _image_column(table.schema_arrow, path)
            groups = [table.metadata.row_group(index) for index in range(table.metadata.num_row_groups)]
            if sum(group.total_byte_size for group in groups) > PARQUET_LIMIT:
                raise UserError(f"{path} unpacks to more than the images of CIFAR-10 can take: it is another data set")
            rows = table.read([column, "label"])
            encoded += [row["bytes"] for row in rows[column].to_pylist()]
            labels += rows["label"].to_pylist()
        except (pyarrow.ArrowException, OSError, TypeError, KeyError) as error:
            raise UserError(f"{path} cannot be read as a parquet file of images: {str(error).strip()}") from error
    require(len(labels) == num_images, str(files[0]), f"{len(labels):,} rows, not {num_images:,}")
    if not all(isinstance(label, int) for label in labels) or not all(isinstance(image, bytes) for image in encoded):
        raise UserError(f"{files[0]} has rows without an image or without a label: it is damaged or another data set")
    pixels = np.empty((len(encoded), SIDE, SIDE, 3), np.uint8)
    for index, content in enumerate(encoded):
        image = decode_image(io.BytesIO(content), f"{index} of {files[0]}")
        require(image.size == (SIDE, SIDE), str(files[0]), f"an image of {image.width} x {image.height} pixels")
        pixels[index] = np.asarray(image.convert("RGB"))
    has_losses = any(content.startswith(b"\xff\xd8") for content in encoded)
    return pixels, np.array(labels, np.int64), "CIFAR-10 (JPEG)" if has_losses else "CIFAR-10"


def _image_column(schema: Any, path: Path) -> str:
    """Name of the image column; refuses files whose metadata name other classes than CIFAR-10's."""
    columns = [name for name in IMAGE_COLUMNS if name in schema.names]
    if not columns or "label" not in schema.names:
        raise UserError(f"{path} needs the columns image and label, but has {', '.join(schema.names)}")
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = about.get("info", {}).get("features", {}).get("label", {}).get("names", list(CLASS_NAMES))
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path} has damaged metadata of Hugging Face: get the file again") from error
    if names != list(CLASS_NAMES):
        raise UserError(f"{path} is not CIFAR-10: its classes are {str(names)[:200]}")
    return columns[0]
