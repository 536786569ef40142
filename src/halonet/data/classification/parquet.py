"""Finding the parquet files of a data set's splits, by file and folder names; a README beside them is ignored."""

import re
from pathlib import Path

from halonet.data.walk import is_hidden

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "eval"),
    "test": ("test", "testing"),
}


def split_of(name: str) -> str | None:
    """The split with this name (in any case), or None."""
    return next((split for split, names in SPLIT_NAMES.items() if name.lower() in names), None)


def find_parquet_files(folder: Path) -> dict[str, list[Path]]:
    """Find the parquet files in a folder, in its subfolder `data` and in subfolders named like splits.

    Returns:
        The sorted files by split, in the order train, validation, test. A file belongs to "train" if neither its name
        nor its folder names a split.
    """
    files: dict[str, list[Path]] = {}
    if folder.is_dir():
        folders = [folder, *(entry for entry in sorted(folder.iterdir()) if _may_hold_parquet(entry))]
        for path in (path for each in folders for path in sorted(each.glob("*.parquet"))):
            if path.is_file() and not is_hidden(path.name):
                files.setdefault(_split_of_file(path, folder), []).append(path)
    return {split: files[split] for split in SPLIT_NAMES if split in files}


def _may_hold_parquet(entry: Path) -> bool:
    return entry.is_dir() and (entry.name == "data" or split_of(entry.name) is not None)


def _split_of_file(path: Path, folder: Path) -> str:
    names = [*re.split(r"[^A-Za-z]+", path.stem), *path.relative_to(folder).parts[:-1]]
    return next((split for split in map(split_of, names) if split), "train")
