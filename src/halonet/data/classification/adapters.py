"""Data sets read by other libraries: Hugging Face's ("hfds/..."), parquet files, and torchvision's ("torch/...")."""

import glob
import importlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from timm.data.dataset_factory import create_dataset
from timm.data.readers.reader_factory import create_reader
from timm.utils.misc import natural_key

from halonet.data.images import Header, decode_header, decode_image, open_image
from halonet.errors import UserError, unknown_name
from halonet.installation import command_for_extra

TORCH_SPLITS = {
    **dict.fromkeys(("cifar10", "cifar100", "fashion_mnist", "kmnist", "mnist", "qmnist"), ("train", "test")),
    **dict.fromkeys(("imagenet", "inaturalist", "places365"), ("train", "validation")),
}


class HuggingFaceImages:
    """One split of a data set of the Hugging Face Hub, through timm's reader.

    Args:
        name: The name on the Hub, which is contacted.
        split: As the Hub names it.
        root: The library's cache folder; its default if None.

    Raises:
        UserError: The package `datasets` is not installed, or the data set cannot be read as labeled images.
    """

    def __init__(self, name: str, split: str, root: Path | None) -> None:
        datasets = _import_datasets(name)
        self._name = f"{name} ({split})"
        cache = str(root) if root else None
        try:
            table = datasets.load_dataset(name, split=split, cache_dir=cache)
        except Exception as error:
            raise UserError(f"data set {self._name} cannot be read: {error}") from error
        image_column, label_column = _columns(datasets, table, self._name)
        self.class_names, class_map = _label_names(table, label_column, self._name)
        self.labels: list[int] = [value if class_map is None else class_map[value] for value in table[label_column]]
        self._reader: Any = create_reader(
            f"hfds/{name}",
            root=cache,
            split=split,
            input_key=image_column,
            target_key=label_column,
            class_map=class_map,
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._reader)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return an image and its label; raises UserError, naming the image, where it cannot be read."""
        file, label = self._reader[index]
        with file:
            return decode_image(file, f"{index} of {self._name}"), int(label)


class ParquetImages:
    """One split of a data set in parquet files that contain the images' bytes.

    Nothing but these files is read: neither a README beside them, which may name addresses, nor paths in them.

    Args:
        files: The split's files, in order.
        name: The split's name for messages.

    Raises:
        UserError: The package `datasets` is not installed, or the files cannot be read as labeled images.
    """

    def __init__(self, files: Sequence[Path], name: str) -> None:
        datasets = _import_datasets(name)
        self._name = name
        try:
            table = datasets.Dataset.from_parquet([glob.escape(str(path.absolute())) for path in files])
        except Exception as error:
            raise UserError(f"data set {name} cannot be read: {' '.join(str(error).split())}") from error
        self._column, label_column = _columns(datasets, table, name)
        self.class_names, class_map = _label_names(table, label_column, name)
        self.labels: list[int] = [value if class_map is None else class_map[value] for value in table[label_column]]
        self._table: Any = table.cast_column(self._column, datasets.Image(decode=False))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return an image and its label; raises UserError, naming the image, where it cannot be read."""
        return self.read(index)

    def read(self, index: int, shorter_side: int | None = None) -> tuple[Image.Image, int]:
        """Return an image, scaled down as `open_image` does, and its label."""
        return decode_image(self._content(index), f"{index} of {self._name}", shorter_side), self.labels[index]

    def inspect(self, index: int) -> Header:
        """Return an image's header; raises UserError as `inspect_image` does."""
        return decode_header(self._content(index), f"{index} of {self._name}")

    def _content(self, index: int) -> io.BytesIO:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {self._name}, which has {len(self)}")
        stored = self._table[index][self._column] or {}
        if stored.get("bytes") is None:
            raise UserError(
                f"image {index} of {self._name} is not in the parquet file, which names {stored.get('path')!r}: "
                "only images whose bytes are in the file are read; write it with its images embedded"
            )
        return io.BytesIO(stored["bytes"])


class TorchvisionImages:
    """One split of a torchvision data set on disk; nothing is downloaded.

    Args:
        name: A key of `TORCH_SPLITS`, timm's name.
        split: "train", "validation" or "test".
        root: The folder that holds the data set as torchvision expects it.

    Raises:
        UserError: The name is unknown, or the data set is not in `root`.
    """

    def __init__(self, name: str, split: str, root: Path | None) -> None:
        if root is None:
            raise UserError(f"data set torch/{name} needs the folder that holds it: give it with --data.root DIR")
        self._name = f"torch/{name} ({split})"
        try:
            self._dataset: Any = create_dataset(f"torch/{name}", root=str(root), split=split, download=False)
        except Exception as error:
            raise UserError(f"data set {self._name} cannot be read from {root}: {error}") from error
        if hasattr(self._dataset, "loader"):
            self._dataset.loader = open_image
        names = getattr(self._dataset, "classes", None) or self._dataset.all_categories
        self.class_names = [name if isinstance(name, str) else ", ".join(name) for name in names]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return an image and its label; raises UserError where it cannot be read."""
        try:
            image, label = self._dataset[index]
        except (UserError, IndexError):
            raise
        except Exception as error:
            raise UserError(f"image {index} of {self._name} cannot be read: {error}") from error
        return image, int(label)


def huggingface_splits(name: str) -> tuple[str, ...]:
    """The splits of a Hugging Face data set, as the Hub names them."""
    if name.startswith(("/", "./", "../", "~")):  # a path, which the Hub need not see
        raise UserError(f"data folder {name} does not exist")
    datasets = _import_datasets(name)
    try:
        return tuple(datasets.get_dataset_split_names(name))
    except Exception as error:
        raise UserError(f"data set hfds/{name} cannot be read: {error}") from error


def torchvision_splits(name: str) -> tuple[str, ...]:
    """The splits of a torchvision data set."""
    if name not in TORCH_SPLITS:
        raise UserError(unknown_name("torchvision data set", name, TORCH_SPLITS))
    return TORCH_SPLITS[name]


def _import_datasets(name: str) -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise UserError(f"reading {name!r} needs the package 'datasets': {command_for_extra('streaming')}") from error


def _columns(datasets: Any, table: Any, where: str) -> tuple[str, str]:
    """Names of the image column and of the label column."""
    images = [key for key, feature in table.features.items() if isinstance(feature, datasets.Image)]
    labels = [key for key in ("label", "labels", "fine_label", "target", "class") if key in table.features]
    if not images or not labels:
        columns = ", ".join(table.features)
        raise UserError(f"data set {where} needs an image column and a label column; its columns: {columns}")
    return images[0], labels[0]


def _label_names(table: Any, column: str, where: str) -> tuple[list[str], dict[str, int] | None]:
    """Class names by label, and the map from the column's values to labels, or None if they are labels already."""
    values = table.unique(column)
    if any(value is None or value == -1 for value in values):
        raise UserError(f"data set {where} has images without a label: choose a split with labels")
    names = getattr(table.features[column], "names", None)
    if names is not None:
        return list(names), None
    if all(isinstance(value, int) and value >= 0 for value in values):
        return [str(label) for label in range(max(values) + 1)], None
    if not all(isinstance(value, str) for value in values):
        raise UserError(f"column {column!r} of data set {where} must hold class names or numbers from 0")
    names = sorted(values, key=lambda value: (natural_key(value), value))
    return names, {name: label for label, name in enumerate(names)}
