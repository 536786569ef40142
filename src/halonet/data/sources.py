"""Where images come from: the meaning of `--data DIR_OR_NAME` and of its splits."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

from PIL import Image

from halonet.data import cifar10, fashion_mnist
from halonet.data.adapters import (
    HuggingFaceImages,
    TorchvisionImages,
    huggingface_splits,
    torchvision_splits,
)
from halonet.data.folder import ImageFolder, ImageTar, check_same_classes, class_folders
from halonet.data.randomness import derive_seed
from halonet.errors import UserError, unknown_name

EMBEDDED = "fashion-mnist"
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "eval"),
    "test": ("test", "testing"),
}
HELD_OUT = 10  # without a validation split, every tenth training image is held out
STREAMS = ("hfids", "tfds", "wds")


@runtime_checkable
class ImageSource(Protocol):
    """A finite, ordered collection of labeled images.

    A source that knows its labels without reading images has them as `labels`, and one of several variants of a data
    set says which as `variant`.
    """

    @property
    def class_names(self) -> list[str]:
        """The name of each class, by label."""
        ...

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]:
        """Return an image and its label."""
        ...


Opener = Callable[[], ImageSource]


def load_source(data: str, split: str, *, root: Path | None = None, train_images: int | None = None) -> ImageSource:
    """Open one split of a data set.

    `data` is one of

    - "fashion-mnist": the embedded subset, with the splits train (9,000), validation (1,000) and test (2,000);
    - "cifar10": CIFAR-10, which lies in `root`, see `halonet.data.cifar10`;
    - a folder that holds train, val (or validation) and test, each a folder of class folders or a tar file of them;
    - a folder of class folders, or a tar file of them, which is one set: evaluate on its split "all";
    - "hfds/FOLDER" or "hfds/NAME": a Hugging Face data set, on disk or on the Hub (which downloads it). A folder that
      holds parquet files needs no prefix;
    - "torch/NAME": a torchvision data set that lies in `root`.

    Where there is no validation split, every tenth image of the training set, in its stored order, is held out as such.

    Args:
        data: Folder, tar file or name.
        split: A member of `available_splits`.
        root: The folder that relative paths start from and that CIFAR-10 and torchvision's files lie in; for Hugging
            Face data sets the cache.
        train_images: Of the split "train", keep so many, the classes in equal parts; a smaller subset lies within a
            larger one. None keeps all.

    Returns:
        The images, in an order that depends on the data alone.

    Raises:
        UserError: The data or the split does not exist, is empty, has classes that differ from the training set's or
            too few images of one, or needs a package that is not installed.
    """
    openers = _find_splits(data, root)
    if split not in openers:
        raise UserError(unknown_name(f"split of data set {data!r}:", split, openers))
    source = openers[split]()
    return _balanced_subset(source, train_images) if train_images is not None and split == "train" else source


def is_named(data: str) -> bool:
    """Whether `data` names a data set, instead of giving its path."""
    return data in (EMBEDDED, cifar10.NAME) or data.startswith(("hfds/", "torch/"))


def available_splits(data: str, *, root: Path | None = None) -> tuple[str, ...]:
    """Name the splits of a data set, the last being the one to measure a finished model on.

    Args:
        data: See `load_source`.
        root: See `load_source`.

    Returns:
        Some of "train", "validation", "test" and "all", in this order. A set that is one folder of class folders has
        "train", "validation" and "all".

    Raises:
        UserError: There is no such data set.
    """
    return tuple(_find_splits(data, root))


def _find_splits(data: str, root: Path | None) -> dict[str, Opener]:
    prefix, _, name = data.partition("/")
    prefix = prefix.lower() if name else ""
    if data == EMBEDDED:
        return {split: partial(fashion_mnist.FashionMNIST, split) for split in fashion_mnist.SPLITS}
    if data == cifar10.NAME:
        splits: dict[str, Opener] = {split: partial(cifar10.Cifar10, root, split) for split in cifar10.NUM_IMAGES}
        return _with_validation(splits, data)
    if prefix in STREAMS:
        raise UserError(
            f"data set {data!r} is a stream, from which a stopped run could not continue exactly: "
            f"use a folder, a tar file, hfds/NAME or torch/NAME"
        )
    if prefix == "hfds":
        return _with_validation(_huggingface(name, root), data)
    if prefix == "torch":
        torch: dict[str, Opener] = {
            split: partial(TorchvisionImages, name, split, root) for split in torchvision_splits(name)
        }
        return _with_validation(torch, data)
    path = Path(root or ".", Path(data).expanduser())
    if not data or not path.exists():
        raise UserError(_no_such_data(data, path))
    if path.is_dir() and (any(path.glob("*.parquet")) or any(path.glob("data/*.parquet"))):
        return _with_validation(_huggingface(str(path), root=None), data)
    return _with_validation(_on_disk(path), data)


def _on_disk(path: Path) -> dict[str, Opener]:
    splits: dict[str, Path] = {}
    for split, names in SPLIT_NAMES.items() if path.is_dir() else ():
        found = [place for name in names for place in (path / name, path / f"{name}.tar") if place.exists()]
        if len(found) > 1:
            raise UserError(f"{path} holds more than one {split} split: keep one of {', '.join(p.name for p in found)}")
        if found:
            splits[split] = found[0]
    if not splits:
        return dict.fromkeys(("train", "all"), partial(_open, path))
    train = splits.get("train")
    return {split: partial(_open, place, train if place != train else None) for split, place in splits.items()}


def _open(path: Path, reference: Path | None = None) -> ImageSource:
    if path.is_file() and path.suffix.lower() != ".tar":
        raise UserError(f"data {path} is a file: give a folder, a .tar file, or the name of a data set")
    source = ImageFolder(path) if path.is_dir() else ImageTar(path)
    if reference:
        expected = class_folders(reference) if reference.is_dir() else ImageTar(reference).class_names
        check_same_classes(source.class_names, str(path), expected, str(reference))
    return source


def _huggingface(name: str, root: Path | None) -> dict[str, Opener]:
    own_names = huggingface_splits(name)
    splits = {split: own for split, names in SPLIT_NAMES.items() for own in reversed(names) if own in own_names}

    def open_split(split: str) -> ImageSource:
        source = HuggingFaceImages(name, splits[split], root)
        if split != "train" and "train" in splits:
            expected = HuggingFaceImages(name, splits["train"], root).class_names
            check_same_classes(source.class_names, f"{name} ({split})", expected, f"{name} (train)")
        return source

    if not splits:
        raise UserError(f"data set hfds/{name} has none of the splits {', '.join(SPLIT_NAMES)}: {', '.join(own_names)}")
    return {split: partial(open_split, split) for split in splits}


def _with_validation(openers: dict[str, Opener], data: str) -> dict[str, Opener]:
    if "validation" in openers or "train" not in openers:
        return openers
    whole = openers["train"]
    parts: dict[str, Opener] = {
        "train": partial(_hold_out, whole, data, validation=False),
        "validation": partial(_hold_out, whole, data, validation=True),
    }
    return parts | {split: opener for split, opener in openers.items() if split != "train"}


def _hold_out(open_whole: Opener, data: str, validation: bool) -> ImageSource:
    source = open_whole()
    if len(source) < HELD_OUT:
        raise UserError(
            f"data set {data!r} has no validation split and {len(source)} training images, too few to hold every "
            f"{HELD_OUT}th out: add a folder 'val' beside 'train'"
        )
    return _Part(source, [i for i in range(len(source)) if (i % HELD_OUT == HELD_OUT - 1) == validation])


def _balanced_subset(source: ImageSource, num_images: int) -> ImageSource:
    """Keep the same images on every machine, drawn from each class by a fixed shuffle."""
    by_class: list[list[int]] = [[] for _ in source.class_names]
    for index, label in enumerate(labels_of(source)):
        by_class[label].append(index)
    kept: list[int] = []
    for label, indices in enumerate(by_class):
        wanted = num_images // len(by_class) + (label < num_images % len(by_class))
        if wanted > len(indices):
            raise UserError(
                f"data.train_images is {num_images:,}, which takes {wanted:,} images of class "
                f"{source.class_names[label]!r}, but there are {len(indices):,}: ask for fewer"
            )
        kept += sorted(indices, key=derive_seed)[:wanted]
    return _Part(source, sorted(kept))


def labels_of(source: ImageSource) -> list[int]:
    """Labels of all images of a source; where it does not know them, every image is read."""
    labels = getattr(source, "labels", None)
    return list(labels) if labels is not None else [source[index][1] for index in range(len(source))]


class _Part:
    def __init__(self, source: ImageSource, indices: Sequence[int]) -> None:
        self.class_names = source.class_names
        self.variant = getattr(source, "variant", None)
        self.checksum = getattr(source, "checksum", None)
        self._source = source
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self._source[self._indices[index]]

    @property
    def labels(self) -> list[int]:
        labels = labels_of(self._source)
        return [labels[index] for index in self._indices]


def _no_such_data(data: str, path: Path) -> str:
    if "/" in data:
        return f"data folder {path} does not exist"
    return unknown_name("data set", data, (EMBEDDED, cifar10.NAME)) + f" Nor is there a folder {path}."
