"""Detection data in COCO's format: the meaning of `--data DIR_OR_NAME` for detectors, and the images and their targets.

An annotation file is checked as a whole when it is opened, masks included; no image is opened and no mask drawn before
it is asked for. What COCO's tools evaluate against (`ground_truth`) keeps crowds and objects outside their image; the
targets leave out what no detector can learn from.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image

from halonet.data.detection.coco_annotations import choose_usable
from halonet.data.detection.coco_file import (
    CocoFile,
    Faults,
    outer_category,
    paused_collector,
    read_annotations,
    read_categories,
)
from halonet.data.detection.coco_layouts import find_splits
from halonet.data.detection.coco_masks import run_lengths
from halonet.data.images import open_image
from halonet.data.walk import is_kind
from halonet.errors import UserError, note_once, unknown_name
from halonet.installation import command_for_extra

DetectionTarget = dict[str, Any]
"""The instances of an image of height H and width W: `boxes`, float32 [n, 4] as x0, y0, x1, y1 in pixels; `labels`,
int64 [n] from 1; `masks`, uint8 [n, H, W] of 0 and 1, if the data has masks; `image_id`, an int."""

Part = Literal["all", "train", "validation"]
SPLITS = ("train", "validation", "test")


@runtime_checkable
class DetectionSource(Protocol):
    """A finite, ordered collection of images with the boxes, classes and, if there are any, masks of their objects.

    Labels run from 1 to the number of classes, in the order of the category ids; 0 is the background.
    """

    @property
    def class_names(self) -> list[str]:
        """The name of each class, by label - 1."""
        ...

    @property
    def category_ids(self) -> list[int]:
        """COCO's id of each class, ascending, by label - 1."""
        ...

    @property
    def image_ids(self) -> list[int]:
        """COCO's id of each image, by index."""
        ...

    @property
    def ground_truth(self) -> dict[str, Any]:
        """What COCO's tools evaluate against: `images`, `annotations` and `categories`, not to be changed."""
        ...

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def __getitem__(self, index: int, /) -> tuple[Image.Image, DetectionTarget]:
        """Return an image of mode "L" or "RGB", and its target."""
        ...


class CocoImages:
    """Images of a folder, with instances from an annotation file in COCO's format.

    Masks may be polygons or run lengths, compressed or not. Images come in the order of their ids. Targets are without
    crowds (`iscrowd`) and without masks that cover no pixel; boxes are clipped to the image. Annotations that are of no
    use are left out, and a `UserNote` counts them by reason (docs/detection.md has the list).

    Args:
        annotation_file: The annotations, JSON.
        image_folder: Where the images' `file_name` starts from, and below which it must stay; of several folders the
            first that holds the first image is taken.
        skip_empty: Whether images are left out in which nothing remains to be found, as training does; their boxes
            decide.
        masks: Whether annotations need masks; False reads none, and None needs them if any object has one.
        part: "all" takes all images, "validation" those that are held out, and "train" the others.
        hold_out: The share of the images that is held out, chosen by their names.
        used_elsewhere: Categories that other splits of the data set use.

    Attributes:
        has_masks: Whether targets and ground truth have masks.
        without_mask: How many objects have no mask.

    Raises:
        UserError: pycocotools is missing, the file is not in COCO's format or contradicts itself, an image's name leads
            out of the folder, or an image file is missing.
    """

    def __init__(
        self,
        annotation_file: Path,
        image_folder: Path | Sequence[Path],
        *,
        skip_empty: bool = False,
        masks: bool | None = None,
        part: Part = "all",
        hold_out: float = 0.0,
        used_elsewhere: frozenset[int] = frozenset(),
    ) -> None:
        _require_mask_tools(annotation_file)  # a lack is said now, not at the first polygon
        faults = Faults(annotation_file)
        with paused_collector():
            content = read_annotations(annotation_file)
            usable = choose_usable(content, faults, masks)
        faults.refuse()
        folders = [image_folder] if isinstance(image_folder, Path) else list(image_folder)
        self._file, self._folder = annotation_file, _choose_folder(folders, content)
        self.has_masks, self.without_mask = usable.has_masks, usable.without_mask
        categories = dict(content.categories)
        used = {annotation["category_id"] for annotation in content.annotations} | used_elsewhere
        notes = list(usable.notes)
        if (outer := outer_category(categories, used)) is not None:
            notes.append(f"category {outer} ({categories.pop(outer)['name']!r}) stands for all others: it is no class")
        self.category_ids = sorted(categories)
        self.class_names = [categories[category]["name"] for category in self.category_ids]
        for note in notes:
            note_once(f"{annotation_file}: {note}")

        instances: dict[int, list[dict[str, Any]]] = {image: [] for image in content.images}
        for annotation in usable.measured:
            if annotation["id"] in usable.learned:
                instances[annotation["image_id"]].append(annotation)
        kept = _choose_part(content.images, part, hold_out)
        self.image_ids = sorted(image for image in kept if instances[image] or not skip_empty)
        if not self.image_ids:
            raise UserError(f"{annotation_file} has no image with an instance to learn from: annotate some")
        self._images = [content.images[image] for image in self.image_ids]
        self._instances = [instances[image] for image in self.image_ids]
        kept = set(self.image_ids)
        self.ground_truth = {
            "images": self._images,
            "annotations": [annotation for annotation in usable.measured if annotation["image_id"] in kept],
            "categories": [categories[category] for category in self.category_ids],
        }
        self._labels = {category: label for label, category in enumerate(self.category_ids, 1)}
        _check_files(self._images, self._folder, annotation_file)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.image_ids)

    def __getitem__(self, index: int) -> tuple[Image.Image, DetectionTarget]:
        """Return an image and its target; raises UserError, naming the file, where the image cannot be read."""
        entry = self._images[index]
        path = self._folder / entry["file_name"]
        image = open_image(path)
        if image.size != (entry["width"], entry["height"]):
            raise UserError(
                f"image {path} has {image.width} x {image.height} pixels, but {self._file} says {entry['width']} x "
                f"{entry['height']} (image {entry['id']}): annotate the file as it is now. If the sides are swapped, "
                f"its EXIF orientation, which is obeyed here, was ignored there"
            )
        found = self._instances[index]
        target: DetectionTarget = {"image_id": entry["id"]}
        if self.has_masks:
            masks = [_draw_mask(annotation, entry) for annotation in found]
            found = [annotation for annotation, mask in zip(found, masks, strict=True) if mask.any()]
            masks = [mask for mask in masks if mask.any()]
            stacked = np.stack(masks) if masks else np.zeros((0, *image.size[::-1]), np.uint8)
            target["masks"] = torch.from_numpy(stacked).contiguous()
        boxes = [_clipped_box(annotation, entry) for annotation in found]
        labels = [self._labels[annotation["category_id"]] for annotation in found]
        target["boxes"] = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        target["labels"] = torch.tensor(labels, dtype=torch.int64)
        return image, target


def load_detection_source(
    data: str,
    split: str,
    *,
    skip_empty: bool = False,
    root: Path | None = None,
    masks: bool | None = None,
    hold_out: float = 0.0,
) -> CocoImages:
    """Open one split of a detection data set.

    `data` is one of

    - "nuclei": the embedded microscope image, with the splits train and test;
    - a folder in COCO's layout: `annotations/instances_NAME.json` beside the image folder `NAME` or `images/NAME`;
    - a folder in Roboflow's layout: folders `NAME`, each with `_annotations.coco.json` beside its images;
    - a folder with one annotation file of any name, in it or in `annotations`, and the images beside or in `images`.

    NAME tells the split and may end in a year: train2017, val2017, valid, test ... Where no name does, all images are
    the split "train".

    Args:
        data: Folder or name.
        split: A member of `available_detection_splits`.
        skip_empty: Whether to leave out images without an instance to learn from; for training.
        root: The folder that relative paths start from.
        masks: Whether annotations need masks, as `CocoImages` takes it.
        hold_out: The share of the training images that is held out as the split "validation", where the data has none.

    Returns:
        The images, in the order of their ids.

    Raises:
        UserError: The data or the split does not exist, its annotations or images are at fault (see `CocoImages`), its
            categories differ from the training set's, or there are too few images to hold some out.
    """
    places = find_splits(data, root)
    if not 0 <= hold_out < 1:
        raise UserError(f"hold_out is {hold_out}, but must be at least 0 and below 1")
    is_cut = bool(hold_out) and "train" in places and "validation" not in places
    known = available_detection_splits(data, root, hold_out=hold_out)
    if split not in known:
        hint = "" if "validation" in known else " To hold some training images out, set data.hold_out to 0.2, say."
        raise UserError(unknown_name(f"split of data set {data!r}:", split, known) + hint)
    parts: dict[str, Part] = {"train": "train", "validation": "validation"} if is_cut else {}
    is_held_out = split == "validation" and is_cut
    annotation_file, image_folders = places["train" if is_held_out else split]
    has_reference = split != "train" and not is_held_out and "train" in places
    expected, used = read_categories(places["train"][0]) if has_reference else ({}, set())
    source = CocoImages(
        annotation_file,
        image_folders,
        skip_empty=skip_empty,
        masks=masks,
        part=parts.get(split, "all"),
        hold_out=hold_out,
        used_elsewhere=frozenset(used),
    )
    if has_reference:
        outer = outer_category(expected, used)
        names = {category: entry["name"] for category, entry in expected.items() if category != outer}
        _check_same_categories(source, annotation_file, names, places["train"][0])
    return source


def available_detection_splits(data: str, root: Path | None = None, *, hold_out: float = 0.0) -> tuple[str, ...]:
    """Name the splits of a detection data set.

    Args:
        data: See `load_detection_source`.
        root: The folder that relative paths start from.
        hold_out: As `load_detection_source` takes it.

    Returns:
        Some of "train", "validation" and "test", in this order.

    Raises:
        UserError: There is no such data set, or two places could be the same split.
    """
    places = find_splits(data, root)
    held_out = {"validation"} if hold_out and "train" in places else set()
    return tuple(split for split in SPLITS if split in {*places, *held_out})


def choose_held_out(images: dict[int, dict[str, Any]], share: float) -> set[int]:
    """Choose the images of a data set that are held out from training.

    An image's name decides, so that the choice is the same everywhere and few images change sides when others are
    added. The copies that Roboflow makes of a photo, NAME.rf.HASH.jpg, stay on one side.

    Args:
        images: COCO's, by id.
        share: Of the images, from 0 to 1.

    Returns:
        Ids: as many as the share asks for, or a few more, where copies of a photo complete it.
    """
    groups: dict[str, list[int]] = {}
    for image, entry in images.items():
        groups.setdefault(entry["file_name"].partition(".rf.")[0], []).append(image)
    wanted = max(1, round(share * len(images)))
    chosen: set[int] = set()
    for name in sorted(groups, key=_digest):
        if len(chosen) >= wanted:
            break
        chosen.update(groups[name])
    return chosen


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _choose_part(images: dict[int, dict[str, Any]], part: Part, hold_out: float) -> set[int]:
    if part == "all":
        return set(images)
    chosen = choose_held_out(images, hold_out)
    if len(chosen) == len(images):
        raise UserError(
            f"{len(images)} images are too few to hold a share of {hold_out} of them out: add images, or a validation "
            "split"
        )
    return chosen if part == "validation" else set(images) - chosen


def _choose_folder(folders: list[Path], content: CocoFile) -> Path:
    """The first folder that holds the first image, else the likeliest that exists."""
    name = next(iter(content.images.values()))["file_name"]
    for folder in folders:
        if os.path.exists(folder / name):
            return folder
    return next((folder for folder in folders[:2] if folder.is_dir()), folders[0])


def _check_files(images: list[dict[str, Any]], folder: Path, file: Path) -> None:
    """Refuse images that are missing, and links that lead out of their folder; one look at each folder."""
    if not folder.is_dir():
        raise UserError(f"image folder {folder} of {file} does not exist: put the images there")
    root = os.path.realpath(folder)
    listings: dict[str, dict[str, bool]] = {}  # by folder: whether each name in it is a link
    faults, missing = Faults(file), []
    for image in images:
        parent, _, name = image["file_name"].rpartition("/")
        place = os.path.join(root, parent)
        if parent not in listings:
            inside = _is_inside(place, root)
            listings[parent] = _list_links(place) if inside else {}
            if not inside:
                faults.add(f"image {image['id']} lies in {parent!r:.80}, a link that leads out of {folder}")
        is_link = listings[parent].get(name)
        if is_link is None:
            missing.append(image["file_name"])
        elif is_link and not _is_inside(os.path.join(place, name), root):
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


def _clipped_box(annotation: dict[str, Any], image: dict[str, Any]) -> tuple[float, float, float, float]:
    """The box as x0, y0, x1, y1 in pixels, cut to the image."""
    left, top, width, height = annotation["bbox"]
    right, bottom = min(left + width, image["width"]), min(top + height, image["height"])
    return float(max(left, 0)), float(max(top, 0)), float(right), float(bottom)


def _draw_mask(annotation: dict[str, Any], image: dict[str, Any]) -> np.ndarray:
    counts = run_lengths(annotation["segmentation"], image["height"], image["width"])
    values = np.arange(len(counts)) % 2
    return np.repeat(values.astype(np.uint8), counts).reshape(image["width"], image["height"]).T


def _check_same_categories(source: CocoImages, file: Path, expected: dict[int, str], train_file: Path) -> None:
    found = dict(zip(source.category_ids, source.class_names, strict=True))
    for category in sorted(found | expected):
        ours, theirs = found.get(category, "missing"), expected.get(category, "missing")
        if ours != theirs:
            raise UserError(
                f"{file} and {train_file} must have the same categories, but category {category} is {ours!r} in the "
                f"one and {theirs!r} in the other"
            )


def _require_mask_tools(file: Path) -> None:
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError as error:
        raise UserError(f"reading {file} needs pycocotools: {command_for_extra('detection')}") from error
