"""Detection data in COCO's format: the meaning of `--data DIR_OR_NAME` for detectors, images and their targets.

A whole annotation file is checked when it is opened, masks included; images are opened and masks drawn only on access.
The annotations that COCO's tools evaluate against (`ground_truth`) include crowds and objects outside their image; the
targets omit what no detector can learn from.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image

from halonet.data.detection.coco_annotations import choose_usable
from halonet.data.detection.coco_file import (
    Faults,
    outer_category,
    paused_collector,
    read_annotations,
    read_categories,
)
from halonet.data.detection.coco_images import Part, check_files, choose_folder, choose_part
from halonet.data.detection.coco_layouts import find_splits
from halonet.data.detection.coco_masks import run_lengths
from halonet.data.images import open_image
from halonet.errors import UserError, note_once, unknown_name
from halonet.installation import command_for_extra

DetectionTarget = dict[str, Any]
"""The instances of an image of height H and width W: `boxes`, float32 [n, 4] as x0, y0, x1, y1 in pixels; `labels`,
int64 [n] from 1; `masks`, uint8 [n, H, W] of 0 and 1, if the data has masks; `image_id`, an int."""

SPLITS = ("train", "validation", "test")


@runtime_checkable
class DetectionSource(Protocol):
    """A finite, ordered collection of images with the boxes, classes and optional masks of their objects.

    Labels run from 1 to the number of classes, in the order of the category ids; 0 is the background.
    """

    @property
    def class_names(self) -> list[str]:
        """Name of each class, by label - 1."""
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
        """`images`, `annotations` and `categories` for COCO's evaluation; do not modify."""
        ...

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def __getitem__(self, index: int, /) -> tuple[Image.Image, DetectionTarget]:
        """Return an image of mode "L" or "RGB", and its target."""
        ...


class CocoImages:
    """Images of a folder, ordered by id, with instances from an annotation file in COCO's format.

    Masks may be polygons or run lengths, compressed or not. Targets omit crowds (`iscrowd`) and masks without pixels;
    boxes are clipped to the image. Unusable annotations are left out, and a `UserNote` counts them by reason
    (docs/detection.md lists the reasons).

    Args:
        annotation_file: The annotations, JSON.
        image_folder: The folder that each `file_name` is relative to and must not leave; of several folders, the first
            that contains the first image.
        skip_empty: Whether to leave out images without a usable box, as training does.
        masks: Whether annotations need masks; False ignores masks, None needs them if any object has one.
        part: "all" images, the held-out ones ("validation"), or the others ("train").
        hold_out: The fraction of the images to hold out, chosen by their names.
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
        _require_mask_tools(annotation_file)  # now rather than at the first polygon
        faults = Faults(annotation_file)
        with paused_collector():
            content = read_annotations(annotation_file)
            usable = choose_usable(content, faults, masks)
        faults.refuse()
        folders = [image_folder] if isinstance(image_folder, Path) else list(image_folder)
        self._file, self._folder = annotation_file, choose_folder(folders, content)
        self.has_masks, self.without_mask = usable.has_masks, usable.without_mask
        categories = dict(content.categories)
        used = {annotation["category_id"] for annotation in content.annotations} | used_elsewhere
        notes = list(usable.notes)
        if (outer := outer_category(categories, used)) is not None:
            name = categories.pop(outer)["name"]
            notes.append(f"category {outer} ({name!r}) is the supercategory of all others: it is not a class")
        self.category_ids = sorted(categories)
        self.class_names = [categories[category]["name"] for category in self.category_ids]
        for note in notes:
            note_once(f"{annotation_file}: {note}")

        instances: dict[int, list[dict[str, Any]]] = {image: [] for image in content.images}
        for annotation in usable.measured:
            if annotation["id"] in usable.learned:
                instances[annotation["image_id"]].append(annotation)
        kept = choose_part(content.images, part, hold_out)
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
        check_files(self._images, self._folder, annotation_file)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.image_ids)

    def __getitem__(self, index: int) -> tuple[Image.Image, DetectionTarget]:
        """Return an image and its target; raises UserError, naming the file, if the image cannot be read."""
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

    NAME is the split's and may end in a year: train2017, val2017, valid, test ... A single file of another name is the
    split "train".

    Args:
        data: Folder or name.
        split: A member of `available_detection_splits`.
        skip_empty: Whether to leave out images without an instance to learn from; for training.
        root: The base of relative paths.
        masks: Whether annotations need masks, see `CocoImages`.
        hold_out: If the data has no split "validation", hold out this fraction of the training images for it.

    Raises:
        UserError: The data or the split does not exist, its annotations or images are faulty (see `CocoImages`), its
            categories differ from the training set's, or there are too few images to hold some out.
    """
    files = find_splits(data, root)
    if not 0 <= hold_out < 1:
        raise UserError(f"hold_out is {hold_out}, but must be at least 0 and below 1")
    is_divided = bool(hold_out) and "train" in files and "validation" not in files
    known = available_detection_splits(data, root, hold_out=hold_out)
    if split not in known:
        hint = "" if "validation" in known else " To hold some training images out, set data.hold_out to 0.2, say."
        raise UserError(unknown_name(f"split of data set {data!r}:", split, known) + hint)
    parts: dict[str, Part] = {"train": "train", "validation": "validation"} if is_divided else {}
    is_held_out = split == "validation" and is_divided
    annotation_file, image_folders = files["train" if is_held_out else split]
    has_reference = split != "train" and not is_held_out and "train" in files
    expected, used = read_categories(files["train"].annotations) if has_reference else ({}, set())
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
        _check_same_categories(source, annotation_file, names, files["train"].annotations)
    return source


def available_detection_splits(data: str, root: Path | None = None, *, hold_out: float = 0.0) -> tuple[str, ...]:
    """Name the splits of a detection data set: some of "train", "validation" and "test", in this order.

    See `load_detection_source`.

    Raises:
        UserError: There is no such data set, or two files could be the same split.
    """
    files = find_splits(data, root)
    held_out = {"validation"} if hold_out and "train" in files else set()
    return tuple(split for split in SPLITS if split in {*files, *held_out})


def _clipped_box(annotation: dict[str, Any], image: dict[str, Any]) -> tuple[float, float, float, float]:
    """The box as x0, y0, x1, y1 in pixels, clipped to the image."""
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
