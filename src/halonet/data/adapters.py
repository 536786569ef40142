"""Data sets that other libraries read: Hugging Face data sets ("hfds/...") and torchvision's ("torch/...")."""

import importlib
from pathlib import Path
from typing import Any

from PIL import Image
from timm.data.dataset_factory import create_dataset
from timm.data.readers.reader_factory import create_reader
from timm.utils.misc import natural_key

from halonet.data.images import decode_image, open_image
from halonet.errors import UserError, unknown_name
from halonet.installation import command_for_extra

TORCH_SPLITS = {
    **dict.fromkeys(("cifar10", "cifar100", "fashion_mnist", "kmnist", "mnist", "qmnist"), ("train", "test")),
    **dict.fromkeys(("imagenet", "inaturalist", "places365"), ("train", "validation")),
}


class HuggingFaceImages:
    """One split of a Hugging Face data set, a folder of parquet files or a name on the Hub, through timm's reader.

    Args:
        name: Folder, or name on the Hub (which downloads it).
        split: The split's own name.
        root: Folder of the library's cache; its default if None.

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
        images = [key for key, feature in table.features.items() if isinstance(feature, datasets.Image)]
        labels = [key for key in ("label", "labels", "fine_label", "target", "class") if key in table.features]
        if not images or not labels:
            columns = ", ".join(table.features)
            raise UserError(f"data set {self._name} needs an image column and a label column; its columns: {columns}")
        self.class_names, class_map = _label_names(table, labels[0], self._name)
        self.labels: list[int] = [value if class_map is None else class_map[value] for value in table[labels[0]]]
        self._reader: Any = create_reader(
            f"hfds/{name}",
            root=cache,
            split=split,
            input_key=images[0],
            target_key=labels[0],
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


class TorchvisionImages:
    """One split of a torchvision data set that lies on disk, as timm names it; nothing is downloaded.

    Args:
        name: A key of `TORCH_SPLITS`.
        split: "train", "validation" or "test".
        root: Folder that holds the data set as torchvision expects it.

    Raises:
        UserError: The name is unknown, or the data set does not lie in `root`.
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
    """Names of the splits of a Hugging Face data set, its own."""
    if name.startswith(("/", "./", "../")) and not Path(name).exists():  # else the Hub would be asked for it
        raise UserError(f"data folder {name} does not exist")
    datasets = _import_datasets(name)
    try:
        return tuple(datasets.get_dataset_split_names(name))
    except Exception as error:
        raise UserError(f"data set hfds/{name} cannot be read: {error}") from error


def torchvision_splits(name: str) -> tuple[str, ...]:
    """Names of the splits of a torchvision data set, ours."""
    if name not in TORCH_SPLITS:
        raise UserError(unknown_name("torchvision data set", name, TORCH_SPLITS))
    return TORCH_SPLITS[name]


def _import_datasets(name: str) -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise UserError(f"reading {name!r} needs the package 'datasets': {command_for_extra('streaming')}") from error


def _label_names(table: Any, column: str, where: str) -> tuple[list[str], dict[str, int] | None]:
    """Class names by label, and the map from the column's values to labels where these are not the labels already."""
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
