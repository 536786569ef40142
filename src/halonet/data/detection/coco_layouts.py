"""Finding the annotation files and image folders of a detection data set: COCO's layout, Roboflow's, or one file."""

import re
from pathlib import Path
from typing import NamedTuple

from halonet.data.classification.parquet import SPLIT_NAMES
from halonet.data.classification.sources import path_of
from halonet.data.detection import nuclei
from halonet.errors import UserError, unknown_name

LAYOUTS = (
    "annotations/instances_NAME.json beside the images in NAME or images/NAME, or NAME/_annotations.coco.json, or one "
    "annotation file with the images beside it or in images"
)


class SplitFiles(NamedTuple):
    """An annotation file, and the folders that may contain its images."""

    annotations: Path
    image_folders: tuple[Path, ...]


Candidate = tuple[str, SplitFiles]
"""Files, and the name that may tell their split."""


def find_splits(data: str, root: Path | None) -> dict[str, SplitFiles]:
    """Find the files of each split of "nuclei" or of a folder, see `halonet.data.load_detection_source`.

    Returns:
        By "train", "validation" and "test", in this order; a single file whose name matches no split is "train".

    Raises:
        UserError: There is no such data set, or two files could be the same split.
    """
    if data == nuclei.NAME:
        return {split: SplitFiles(nuclei.annotation_file(split), (nuclei.FOLDER,)) for split in nuclei.SPLITS}
    path = path_of(data, root)
    if not data or not path.is_dir():
        problem = f"is a file: give the folder of {LAYOUTS}" if data and path.is_file() else "does not exist"
        known = "" if "/" in data else " " + unknown_name("data set", data, (nuclei.NAME,))
        raise UserError(f"data folder {path} {problem}.{known}")

    # In order of precedence.
    named = [_candidate(file, path) for file in sorted(path.glob("annotations/instances_*.json"))]
    roboflow = sorted(path.glob("*/_annotations.coco.json"))
    named += [(file.parent.name, SplitFiles(file, (file.parent,))) for file in roboflow]
    others = [*path.glob("annotations/*.json"), *path.glob("*.json")]
    others = [_candidate(file, path) for file in sorted(others) if not file.name.startswith(".")]
    splits = _by_split(named, path) or _by_split(others, path)
    candidates = named or others
    if not splits and len(candidates) == 1:
        ((_, (file, folders)),) = candidates
        splits = {"train": SplitFiles(file, folders[2:] or folders)}
    if not splits and others:
        names = ", ".join(str(files.annotations.relative_to(path)) for _, files in candidates[:3])
        raise UserError(
            f"{path} holds several annotation files: name them after train, val or test, or keep one ({names})"
        )
    if not splits:
        raise UserError(f"{path} holds no detection data: expected {LAYOUTS}, NAME being train, val or test")
    return splits


def _candidate(file: Path, path: Path) -> Candidate:
    name = file.stem.removeprefix("instances_")
    return name, SplitFiles(file, (path / name, path / "images" / name, path / "images", path))


def _by_split(candidates: list[Candidate], path: Path) -> dict[str, SplitFiles]:
    splits: dict[str, SplitFiles] = {}
    for split, names in SPLIT_NAMES.items():
        found = [files for name, files in candidates if re.sub(r"\d+$", "", name).lower() in names]
        if len(found) > 1:
            files = ", ".join(str(each.annotations.relative_to(path)) for each in found)
            raise UserError(f"{path} holds more than one {split} split: keep one of {files}")
        if found:
            splits[split] = found[0]
    return splits
