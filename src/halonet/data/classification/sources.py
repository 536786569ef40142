"""Where images come from: the meaning of `--data DIR_OR_NAME` and of its splits."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

from PIL import Image

from halonet.data.classification import cifar10, fashion_mnist
from halonet.data.classification.adapters import (
    HuggingFaceImages,
    ParquetImages,
    TorchvisionImages,
    huggingface_splits,
    torchvision_splits,
)
from halonet.data.classification.folder import ImageFolder, ImageTar, check_same_classes, class_folders
from halonet.data.classification.parquet import SPLIT_NAMES, find_parquet_files, split_of
from halonet.data.images import Header
from halonet.data.randomness import derive_order, derive_seed
from halonet.data.walk import is_hidden, is_image_name
from halonet.errors import UserError, note_once, unknown_name

EMBEDDED = "fashion-mnist"
HELD_OUT = 10  # without a validation split, every tenth training image is held out
STREAMS = ("hfids", "tfds", "wds")


@runtime_checkable
class ImageSource(Protocol):
    """A finite, ordered collection of labeled images.

    A source that knows its labels without reading images has them as `labels`, and one of several variants of a data
    set says which as `variant`. One of files has their `names`, reads a header alone with `inspect(index)`, and reads
    an image scaled down with `read(index, shorter_side)`.
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


def load_source(
    data: str,
    split: str,
    *,
    root: Path | None = None,
    train_images: int | None = None,
    hold_out: float | None = None,
    seed: int = 0,
) -> ImageSource:
    """Open one split of a data set.

    `data` is one of

    - "fashion-mnist": the embedded subset, with the splits train (9,000), validation (1,000) and test (2,000);
    - "cifar10": CIFAR-10, which lies in `root`, see `halonet.data.classification.cifar10`;
    - a folder that holds train, val (or validation) and test, each a folder of class folders or a tar file of them;
    - a folder of class folders, or a tar file of them, which is one set: evaluate on its split "all";
    - a folder of parquet files, as Hugging Face writes them, with the images in them: of the folder nothing else is
      read, and nothing elsewhere;
    - "hfds/NAME": a data set of the Hugging Face Hub, which downloads it. ("hfds/FOLDER" is the folder.)
    - "torch/NAME": a torchvision data set that lies in `root`.

    A folder's splits are found whatever the case of their names, and a folder called train that holds images and no
    folders is a class. Where there is no validation split, every tenth image of the training set, in its stored order,
    is held out as such, or what `hold_out` says.

    Args:
        data: Folder, tar file or name.
        split: A member of `available_splits`.
        root: The folder that relative paths start from and that CIFAR-10 and torchvision's files lie in; for Hugging
            Face data sets the cache.
        train_images: Of the split "train", keep so many, the classes in equal parts; a smaller subset lies within a
            larger one. None keeps all.
        hold_out: Where there is no validation split, hold this part of each class out (at least one image), drawn by
            the images' names and the seed, wherever they lie.
        seed: Of that draw.

    Returns:
        The images, in an order that depends on the data alone.

    Raises:
        UserError: The data or the split does not exist, is empty, has classes that differ from the training set's or
            too few images of one, or needs a package that is not installed.
    """
    openers = _find_splits(data, root, hold_out, seed)
    if split not in openers:
        raise UserError(unknown_name(f"split of data set {data!r}:", split, openers))
    source = openers[split]()
    return _balanced_subset(source, train_images) if train_images is not None and split == "train" else source


def is_named(data: str) -> bool:
    """Whether `data` names a data set, instead of giving its path."""
    return data in (EMBEDDED, cifar10.NAME) or data.startswith(("hfds/", "torch/"))


def is_remote(data: str) -> bool:
    """Whether reading `data` asks the network: a Hugging Face data set that is no folder here."""
    prefix, _, name = data.partition("/")
    looks_local = name.startswith(("/", "./", "../", "~"))
    return prefix.lower() == "hfds" and bool(name) and not looks_local and not os.path.isdir(name)


def require_asked_for(source: str | None, asked: str | None, where: str, flag: str = "--data.source") -> None:
    """Refuse to fetch a data set that only a file names.

    Args:
        source: The data.
        asked: What the user's own words name.
        where: What names the data, for the message.
        flag: Which names it on the command line.

    Raises:
        UserError: The data would have to be fetched, and the user did not name it.
    """
    if source is not None and source != asked and is_remote(source):
        raise UserError(f"{where} names the data set {source}, which is fetched: say so with {flag} {source}")


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


def _find_splits(data: str, root: Path | None, hold_out: float | None = None, seed: int = 0) -> dict[str, Opener]:
    splits = _own_splits(data, root)
    if "validation" in splits or "train" not in splits:
        return splits
    whole = splits["train"]

    def open_part(validation: bool) -> ImageSource:
        source = whole()
        held_out = _every_tenth(source, data) if hold_out is None else _part_of_each_class(source, data, hold_out, seed)
        return _Part(source, [index for index in range(len(source)) if (index in held_out) == validation])

    parts: dict[str, Opener] = {"train": partial(open_part, False), "validation": partial(open_part, True)}
    return parts | {split: opener for split, opener in splits.items() if split != "train"}


def _own_splits(data: str, root: Path | None) -> dict[str, Opener]:
    """What opens each split that a data set has."""
    prefix, _, name = data.partition("/")
    prefix = prefix.lower() if name else ""
    if data == EMBEDDED:
        return {split: partial(fashion_mnist.FashionMNIST, split) for split in fashion_mnist.SPLITS}
    if data == cifar10.NAME:
        return {split: partial(cifar10.Cifar10, root, split) for split in cifar10.NUM_IMAGES}
    if prefix in STREAMS:
        raise UserError(
            f"data set {data!r} is a stream, from which a stopped run could not continue exactly: "
            f"use a folder, a tar file, hfds/NAME or torch/NAME"
        )
    if prefix == "torch":
        return {split: partial(TorchvisionImages, name, split, root) for split in torchvision_splits(name)}
    if prefix == "hfds" and is_remote(data):
        return _huggingface(name, root)
    path = _find(name, None) if prefix == "hfds" else _find(data, root)
    if files := find_parquet_files(path):
        return _parquet(path, files)
    if prefix == "hfds":
        raise UserError(f"{path} holds no parquet files: name a folder of class folders without hfds/")
    return _on_disk(path)


def place_of(data: str, root: Path | None) -> Path:
    """The path that `data` stands for, if it stands for one.

    Args:
        data: As the user gave it.
        root: The folder that relative paths start from.

    Returns:
        The path; nothing need be there.

    Raises:
        UserError: No path can be called so.
    """
    try:
        path = Path(root or ".", Path(data).expanduser())
        path.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL character, no such user
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"data {data[:200]!r} cannot be the name of a folder: {reason}") from error
    return path


def _find(data: str, root: Path | None) -> Path:
    path = place_of(data, root)
    if data and path.exists():
        return path
    raise UserError(_no_such_data(data, path))


def _on_disk(path: Path) -> dict[str, Opener]:
    splits: dict[str, list[Path]] = {}
    others: list[Path] = []  # folders that are no splits
    entries = [entry for entry in path.iterdir() if not is_hidden(entry.name)] if path.is_dir() else []
    for entry in sorted(entries):
        split = split_of(entry.stem if entry.suffix.lower() == ".tar" else entry.name)
        if entry.is_dir() and (split is None or _holds_only_images(entry)):
            others.append(entry)
        elif split is not None and (entry.is_dir() or entry.suffix.lower() == ".tar"):
            splits.setdefault(split, []).append(entry)
    named_like_splits = [entry for entry in others if split_of(entry.name)]
    if not splits and named_like_splits and named_like_splits == others:
        names = ", ".join(entry.name for entry in others)
        raise UserError(
            f"{names} in {path} hold images but no class folders: put the images into SPLIT/CLASS, such as "
            f"{others[0]}/CLASS"
        )
    if not splits:
        return dict.fromkeys(("train", "all"), partial(_open, path))
    for split, found in splits.items():
        if len(found) > 1:
            names = ", ".join(place.name for place in found)
            raise UserError(f"{path} holds more than one {split} split: keep one of {names}")
    if others:
        kept = [place.name for found in splits.values() for place in found]
        names = ", ".join(entry.name for entry in others)
        note_once(f"{path}: left out {names}, which is none of the splits beside it ({', '.join(kept)})")
    places = {split: splits[split][0] for split in SPLIT_NAMES if split in splits}
    train = places.get("train")
    return {split: partial(_open, place, train if place != train else None) for split, place in places.items()}


def _holds_only_images(folder: Path) -> bool:
    """Whether a folder is that of a class: it holds images, and no folders."""
    entries = [entry for entry in folder.iterdir() if not is_hidden(entry.name)]
    return any(is_image_name(entry.name) for entry in entries) and not any(entry.is_dir() for entry in entries)


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


def _parquet(folder: Path, files: dict[str, list[Path]]) -> dict[str, Opener]:
    def open_split(split: str) -> ImageSource:
        source = ParquetImages(files[split], f"{folder} ({split})")
        if split != "train" and "train" in files:
            expected = ParquetImages(files["train"], f"{folder} (train)").class_names
            check_same_classes(source.class_names, f"{folder} ({split})", expected, f"{folder} (train)")
        return source

    return {split: partial(open_split, split) for split in files}


def _every_tenth(source: ImageSource, data: str) -> set[int]:
    if len(source) < HELD_OUT:
        raise UserError(
            f"data set {data!r} has no validation split and {len(source)} training images, too few to hold every "
            f"{HELD_OUT}th out: add a folder 'val' beside 'train'"
        )
    return set(range(HELD_OUT - 1, len(source), HELD_OUT))


def _part_of_each_class(source: ImageSource, data: str, part: float, seed: int) -> set[int]:
    names = names_of(source)
    held_out: set[int] = set()
    for label, indices in enumerate(_by_class(source)):
        count = max(1, round(part * len(indices)))
        if count >= len(indices):
            raise UserError(
                f"class {source.class_names[label]!r} of {data!r} has {len(indices)} images, and {count} of them would "
                "be held out: each class needs at least two images, one to learn from and one to measure on"
            )
        held_out |= set(sorted(indices, key=lambda index: derive_order(seed, names[index]))[:count])
    return held_out


def _by_class(source: ImageSource) -> list[list[int]]:
    by_class: list[list[int]] = [[] for _ in source.class_names]
    for index, label in enumerate(labels_of(source)):
        by_class[label].append(index)
    return by_class


def _balanced_subset(source: ImageSource, num_images: int) -> ImageSource:
    """Keep the same images on every machine, drawn from each class by a fixed shuffle."""
    by_class = _by_class(source)
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


def names_of(source: ImageSource) -> list[str]:
    """Names of all images of a source; where they have none, their numbers in the stored order."""
    names = getattr(source, "names", None)
    return list(names) if names is not None else [str(index) for index in range(len(source))]


def read_scaled(source: ImageSource, index: int, shorter_side: int | None) -> tuple[Image.Image, int]:
    """Read an image and its label, scaled down by the decoder where the source can."""
    read = getattr(source, "read", None)
    return source[index] if read is None else read(index, shorter_side)


def inspect_source(source: ImageSource, index: int) -> Header:
    """Read what is to be known of an image: of its header alone, where the source can."""
    inspect = getattr(source, "inspect", None)
    if inspect is not None:
        return inspect(index)
    image, _ = source[index]
    return Header(image.size, image.mode != "L")


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

    def read(self, index: int, shorter_side: int | None = None) -> tuple[Image.Image, int]:
        return read_scaled(self._source, self._indices[index], shorter_side)

    def inspect(self, index: int) -> Header:
        return inspect_source(self._source, self._indices[index])

    @property
    def names(self) -> list[str]:
        names = names_of(self._source)
        return [names[index] for index in self._indices]

    @property
    def labels(self) -> list[int]:
        labels = labels_of(self._source)
        return [labels[index] for index in self._indices]


def _no_such_data(data: str, path: Path) -> str:
    if "/" in data:
        return f"data folder {path} does not exist"
    return unknown_name("data set", data, (EMBEDDED, cifar10.NAME)) + f" Nor is there a folder {path}."
