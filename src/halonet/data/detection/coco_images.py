"""The image files of a COCO data set: which folder they are in, whether all exist, and which are held out."""

import hashlib
import os
from pathlib import Path
from typing import Any, Literal

from halonet.data.detection.coco_file import CocoFile, Faults
from halonet.data.walk import is_kind
from halonet.errors import UserError

Part = Literal["all", "train", "validation"]


def choose_folder(folders: list[Path], content: CocoFile) -> Path:
    """The first folder that contains the first image, else the most likely one that exists."""
    name = next(iter(content.images.values()))["file_name"]
    for folder in folders:
        if os.path.exists(folder / name):
            return folder
    return next((folder for folder in folders[:2] if folder.is_dir()), folders[0])


def check_files(images: list[dict[str, Any]], folder: Path, file: Path) -> None:
    """Refuse missing images and links that lead out of the folder; each folder is listed once."""
    if not folder.is_dir():
        raise UserError(f"image folder {folder} of {file} does not exist: put the images there")
    root = os.path.realpath(folder)
    listings: dict[str, dict[str, bool]] = {}  # for each folder, whether each file in it is a link
    faults, missing = Faults(file), []
    for image in images:
        parent, _, name = image["file_name"].rpartition("/")
        directory = os.path.join(root, parent)
        if parent not in listings:
            inside = _is_inside(directory, root)
            listings[parent] = _list_links(directory) if inside else {}
            if not inside:
                faults.add(f"image {image['id']} lies in {parent!r:.80}, a link that leads out of {folder}")
        is_link = listings[parent].get(name)
        if is_link is None:
            missing.append(image["file_name"])
        elif is_link and not _is_inside(os.path.join(directory, name), root):
            link = f"image {image['id']} is {image['file_name']!r:.80}, a link that leads out of {folder}"
            faults.add(f"{link}: put the file there")
    faults.refuse()
    if missing:
        raise UserError(
            f"{len(missing)} of {len(images)} images of {file} are missing in {folder}, the first being "
            f"{missing[0]!r:.80}: put them there"
        )


def _list_links(folder: str) -> dict[str, bool]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.is_symlink() for entry in entries if is_kind(entry.is_file)}
    except (OSError, ValueError):
        return {}


def _is_inside(path: str, root: str) -> bool:
    try:
        real = os.path.realpath(path)
    except (OSError, ValueError):
        return False
    return real == root or real.startswith(root.rstrip(os.sep) + os.sep)


def choose_held_out(images: dict[int, dict[str, Any]], fraction: float) -> set[int]:
    """Choose the ids of a fraction of a data set's images, to be held out from training.

    The choice depends on the file names, so it is the same everywhere and few images change sides when others are
    added. The copies that Roboflow makes of a photo, NAME.rf.HASH.jpg, stay together, which may exceed the fraction.
    """
    groups: dict[str, list[int]] = {}
    for image, entry in images.items():
        groups.setdefault(entry["file_name"].partition(".rf.")[0], []).append(image)
    wanted = max(1, round(fraction * len(images)))
    chosen: set[int] = set()
    for name in sorted(groups, key=_digest):
        if len(chosen) >= wanted:
            break
        chosen.update(groups[name])
    return chosen


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def choose_part(images: dict[int, dict[str, Any]], part: Part, hold_out: float) -> set[int]:
    """Choose the ids of one part of a data set's images; see `halonet.data.CocoImages`."""
    if part == "all":
        return set(images)
    chosen = choose_held_out(images, hold_out)
    if len(chosen) == len(images):
        count = f"{len(images)} images are" if len(images) != 1 else "1 image is"
        raise UserError(
            f"{count} too few to hold out a fraction of {hold_out}: add images, or hold none out with --data.hold-out "
            "null and measure on another split with --data.validation-split"
        )
    return chosen if part == "validation" else set(images) - chosen
