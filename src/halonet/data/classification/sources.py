"""Opening a data set for classification: the meaning of `--data DIR_OR_NAME` and of its splits."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from halonet.data.classification import cifar10, fashion_mnist
from halonet.data.classification.adapters import (
    HuggingFaceImages,
    ParquetImages,
    TorchvisionImages,
    huggingface_splits,
    torchvision_splits,
)
from halonet.data.classification.folder import ImageFolder, ImageTar, check_same_classes, class_folders
from halonet.data.classification.image_source import ImageSource
from halonet.data.classification.parquet import SPLIT_NAMES, find_parquet_files, split_of
from halonet.data.classification.subsets import Subset, balanced_subset, every_tenth, part_of_each_class
from halonet.data.walk import is_hidden, is_image_name
from halonet.errors import UserError, note_once, unknown_name

EMBEDDED = "fashion-mnist"
STREAMS = ("hfids", "tfds", "wds")


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
    - "cifar10": CIFAR-10 in `root`, see `halonet.data.classification.cifar10`;
    - a folder that contains train, val (or validation) and test, each a folder or a tar file of class folders;
    - a folder or a tar file of class folders, which is one set: evaluate on its split "all";
    - a folder of parquet files, as Hugging Face writes them, that contain the images; nothing else is read;
    - "hfds/NAME": a data set of the Hugging Face Hub, which is downloaded ("hfds/FOLDER" is a local folder);
    - "torch/NAME": a torchvision data set in `root`.

    Split names may be in any case; a folder called train that contains images and no folders is a class. If there is no
    validation split, every tenth image of the training set, in its stored order, is held out for it (or see
    `hold_out`).

    Args:
        data: Folder, tar file or name.
        split: A member of `available_splits`.
        root: The base of relative paths, and the folder of CIFAR-10 and of torchvision's files; for data sets of the
            Hub, the cache.
        train_images: Keep this many images of the split "train", equally many per class; smaller subsets are contained
            in larger ones. None keeps all.
        hold_out: If there is no validation split, hold out this fraction of each class (at least one image), drawn by
            the images' names and the seed.
        seed: The seed of that draw.

    Returns:
        The images, in an order that depends only on the data.

    Raises:
        UserError: The data or the split does not exist or is empty, its classes differ from the training set's, a class
            has too few images, or a package is missing.
    """
    openers = _find_splits(data, root, hold_out, seed)
    if split not in openers:
        raise UserError(unknown_name(f"split of data set {data!r}:", split, openers))
    source = openers[split]()
    return balanced_subset(source, train_images) if train_images is not None and split == "train" else source


def is_named(data: str) -> bool:
    """Whether `data` is the name of a data set rather than a path."""
    return data in (EMBEDDED, cifar10.NAME) or data.startswith(("hfds/", "torch/"))


def is_remote(data: str) -> bool:
    """Whether reading `data` uses the network: a data set of the Hugging Face Hub, not a local folder."""
    prefix, _, name = data.partition("/")
    looks_local = name.startswith(("/", "./", "../", "~"))
    return prefix.lower() == "hfds" and bool(name) and not looks_local and not os.path.isdir(name)


def require_asked_for(source: str | None, asked: str | None, where: str, flag: str = "--data.source") -> None:
    """Refuse to download a data set that a file names but the user did not.

    Args:
        source: The data.
        asked: The data that the user named.
        where: The file that names the data, for the message.
        flag: The command-line flag that names it.

    Raises:
        UserError: The data would be downloaded, and the user did not name it.
    """
    if source is not None and source != asked and is_remote(source):
        raise UserError(
            f"{where} names the data set {source}, which would be downloaded: allow it with {flag} {source}"
        )


def available_splits(data: str, *, root: Path | None = None) -> tuple[str, ...]:
    """Name the splits of a data set; the last one is for measuring a finished model. See `load_source`.

    Returns:
        Some of "train", "validation", "test" and "all", in this order. One folder of class folders has "train",
        "validation" and "all".

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
        held_out = every_tenth(source, data) if hold_out is None else part_of_each_class(source, data, hold_out, seed)
        return Subset(source, [index for index in range(len(source)) if (index in held_out) == validation])

    parts: dict[str, Opener] = {"train": partial(open_part, False), "validation": partial(open_part, True)}
    return parts | {split: opener for split, opener in splits.items() if split != "train"}


def _own_splits(data: str, root: Path | None) -> dict[str, Opener]:
    """The functions that open the splits which the data set itself has."""
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


def path_of(data: str, root: Path | None) -> Path:
    """The path of `data` below `root`, which need not exist; raises UserError if it is not a valid path."""
    try:
        path = Path(root or ".", Path(data).expanduser())
        path.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, contains NUL, or of an unknown user
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"data {data[:200]!r} cannot be the name of a folder: {reason}") from error
    return path


def _find(data: str, root: Path | None) -> Path:
    path = path_of(data, root)
    if data and path.exists():
        return path
    raise UserError(_no_such_data(data, path))


def _on_disk(path: Path) -> dict[str, Opener]:
    splits: dict[str, list[Path]] = {}
    others: list[Path] = []  # folders that are not splits
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
            names = ", ".join(entry.name for entry in found)
            raise UserError(f"{path} holds more than one {split} split: keep one of {names}")
    if others:
        kept = [entry.name for found in splits.values() for entry in found]
        names = ", ".join(entry.name for entry in others)
        note_once(f"{path}: left out {names}, which is not one of the splits ({', '.join(kept)})")
    paths = {split: splits[split][0] for split in SPLIT_NAMES if split in splits}
    train = paths.get("train")
    return {split: partial(_open, path, train if path != train else None) for split, path in paths.items()}


def _holds_only_images(folder: Path) -> bool:
    """Whether a folder is a class: it contains images and no folders."""
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


def _no_such_data(data: str, path: Path) -> str:
    if "/" in data:
        return f"data folder {path} does not exist"
    return unknown_name("data set", data, (EMBEDDED, cifar10.NAME)) + f" Nor is there a folder {path}."
