"""Where a detection data set's annotation files and images lie: COCO's own layout, Roboflow's, and one file alone."""

import re
from pathlib import Path

from halonet.data.classification.sources import SPLIT_NAMES, place_of
from halonet.data.detection import nuclei
from halonet.errors import UserError, unknown_name

LAYOUTS = (
    "annotations/instances_NAME.json beside the images in NAME or images/NAME, or NAME/_annotations.coco.json, or one "
    "annotation file with the images beside it or in images"
)

Place = tuple[Path, tuple[Path, ...]]
"""An annotation file, and the folders that its images may lie in."""


def find_splits(data: str, root: Path | None) -> dict[str, Place]:
    """Find the annotation file and the image folders of each split.

    Args:
        data: "nuclei" or a folder, see `halonet.data.load_detection_source`.
        root: The folder that relative paths start from.

    Returns:
        By "train", "validation" and "test", in this order; one file that is not named after a split is "train".

    Raises:
        UserError: There is no such data set, or two places could be the same split.
    """
    if data == nuclei.NAME:
        return {split: (nuclei.annotation_file(split), (nuclei.FOLDER,)) for split in nuclei.SPLITS}
    path = place_of(data, root)
    if not data or not path.is_dir():
        problem = f"is a file: give the folder of {LAYOUTS}" if data and path.is_file() else "does not exist"
        known = "" if "/" in data else " " + unknown_name("data set", data, (nuclei.NAME,))
        raise UserError(f"data folder {path} {problem}.{known}")

    # The layouts in the order in which they are looked for.
    named = [_in_annotations(file, path) for file in sorted(path.glob("annotations/instances_*.json"))]
    named += [(file.parent.name, file, (file.parent,)) for file in sorted(path.glob("*/_annotations.coco.json"))]
    others = [*path.glob("annotations/*.json"), *path.glob("*.json")]
    others = [_in_annotations(file, path) for file in sorted(others) if not file.name.startswith(".")]
    splits = _by_split(named, path) or _by_split(others, path)
    if not splits and len(whole := named or others) == 1:
        _, file, folders = whole[0]
        splits = {"train": (file, folders[2:] or folders)}
    if not splits and others:
        files = ", ".join(str(file.relative_to(path)) for _, file, _ in (named or others)[:3])
        raise UserError(
            f"{path} holds several annotation files: name them after train, val or test, or keep one ({files})"
        )
    if not splits:
        raise UserError(f"{path} holds no detection data: expected {LAYOUTS}, NAME being train, val or test")
    return splits


def _in_annotations(file: Path, path: Path) -> tuple[str, Path, tuple[Path, ...]]:
    """A file's name, less COCO's beginning; itself; and where its images may lie."""
    name = file.stem.removeprefix("instances_")
    folders = (path / name, path / "images" / name, path / "images", path)
    return name, file, folders


def _by_split(named: list[tuple[str, Path, tuple[Path, ...]]], path: Path) -> dict[str, Place]:
    splits: dict[str, Place] = {}
    for split, names in SPLIT_NAMES.items():
        found = [(file, folders) for name, file, folders in named if re.sub(r"\d+$", "", name).lower() in names]
        if len(found) > 1:
            files = ", ".join(str(file.relative_to(path)) for file, _ in found)
            raise UserError(f"{path} holds more than one {split} split: keep one of {files}")
        if found:
            splits[split] = found[0]
    return splits
