"""Detection data in COCO's format: the meaning of `--data DIR_OR_NAME` for detectors, and the images and their targets.

An annotation file is checked as a whole when it is opened; no image is opened and no mask decoded before it is asked
for. What COCO's tools evaluate against (`ground_truth`) keeps every annotation; the targets leave out what no detector
can learn from.
"""

import re
import warnings
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image

from halonet.data import nuclei
from halonet.data.coco_file import CATEGORY, by_id, clipped_box, decompress, is_number, read_annotations, read_lists
from halonet.data.images import open_image
from halonet.data.sources import SPLIT_NAMES
from halonet.errors import UserError, UserNote, unknown_name
from halonet.installation import command_for_extra

DetectionTarget = dict[str, Any]
"""The instances of an image of height H and width W: `boxes`, float32 [n, 4] as x0, y0, x1, y1 in pixels; `labels`,
int64 [n] from 1; `masks`, uint8 [n, H, W] of 0 and 1; `image_id`, an int."""

FARTHEST = 2**20  # pixels; pycocotools draws a polygon's edges point by point, however far they lead
LAYOUTS = "annotations/instances_NAME.json beside the images in NAME or images/NAME, or NAME/_annotations.coco.json"


@runtime_checkable
class DetectionSource(Protocol):
    """A finite, ordered collection of images with the boxes, classes and masks of the objects in them.

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
    crowds (`iscrowd`), without annotations whose box has no area inside the image, which a `UserNote` counts, and
    without masks that cover no pixel; boxes are clipped to the image.

    Args:
        annotation_file: The annotations, JSON.
        image_folder: Where the images' `file_name` starts from.
        skip_empty: Whether images are left out in which nothing remains to be found, as training does; their boxes
            decide.

    Raises:
        UserError: pycocotools is missing, the file is not in COCO's format or contradicts itself, or an image file is
            missing.
    """

    def __init__(self, annotation_file: Path, image_folder: Path, *, skip_empty: bool = False) -> None:
        _import_mask_tools(annotation_file)  # a lack is said now, not at the first polygon
        self._file, self._folder = annotation_file, image_folder
        images, annotations, categories = read_annotations(annotation_file)
        self.category_ids = sorted(categories)
        self.class_names = [categories[category]["name"] for category in self.category_ids]

        instances: dict[int, list[dict[str, Any]]] = {image: [] for image in images}
        without_area = []
        for annotation in annotations:
            image = images[annotation["image_id"]]
            if not is_number(annotation.get("area")):
                annotation["area"] = float(sum(self._run_lengths(annotation, image)[1::2]))
            left, top, right, bottom = clipped_box(annotation, image)
            if annotation["iscrowd"]:
                continue
            if right > left and bottom > top:
                instances[image["id"]].append(annotation)
            else:
                without_area.append(annotation["id"])
        if without_area:
            note = (
                f"{annotation_file}: {len(without_area)} of {len(annotations)} annotations are no targets, as their "
                f"boxes have no area inside their images (the first: annotation {without_area[0]})"
            )
            warnings.warn(note, UserNote, stacklevel=2)

        self.image_ids = sorted(image for image in images if instances[image] or not skip_empty)
        if not self.image_ids:
            raise UserError(f"{annotation_file} has no image with an instance to learn from: annotate some")
        self._images = [images[image] for image in self.image_ids]
        self._instances = [instances[image] for image in self.image_ids]
        kept = set(self.image_ids)
        self.ground_truth = {
            "images": self._images,
            "annotations": [annotation for annotation in annotations if annotation["image_id"] in kept],
            "categories": [categories[category] for category in self.category_ids],
        }
        self._labels = {category: label for label, category in enumerate(self.category_ids, 1)}
        self._check_files()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.image_ids)

    def __getitem__(self, index: int) -> tuple[Image.Image, DetectionTarget]:
        """Return an image and its target; raises UserError, naming the file, where it cannot be read or has no mask."""
        entry = self._images[index]
        path = self._folder / entry["file_name"]
        image = open_image(path)
        if image.size != (entry["width"], entry["height"]):
            raise UserError(
                f"image {path} has {image.width} x {image.height} pixels, but {self._file} says {entry['width']} x "
                f"{entry['height']} (image {entry['id']}): annotate the file as it is now. If the sides are swapped, "
                f"its EXIF orientation, which is obeyed here, was ignored there"
            )
        masks = [self._mask(annotation, entry) for annotation in self._instances[index]]
        found = [place for place, mask in enumerate(masks) if mask.any()]
        boxes = [clipped_box(self._instances[index][place], entry) for place in found]
        labels = [self._labels[self._instances[index][place]["category_id"]] for place in found]
        stacked = np.stack([masks[place] for place in found]) if found else np.zeros((0, *image.size[::-1]), np.uint8)
        return image, {
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor(labels, dtype=torch.int64),
            "masks": torch.from_numpy(stacked).contiguous(),
            "image_id": entry["id"],
        }

    def _check_files(self) -> None:
        if not self._folder.is_dir():
            raise UserError(f"image folder {self._folder} of {self._file} does not exist: put the images there")
        present = {path.name for path in self._folder.iterdir()}  # one look at the folder, not one at each file
        names = (image["file_name"] for image in self._images)
        missing = [name for name in names if name not in present and not (self._folder / name).is_file()]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(self)} images of {self._file} are missing in {self._folder}, the first being "
                f"{missing[0]}: put them there"
            )

    def _run_lengths(self, annotation: dict[str, Any], image: dict[str, Any]) -> list[int]:
        """How many pixels of a mask are 0, then 1, then 0 ..., down its columns one after another."""
        mask, height, width = annotation["segmentation"], image["height"], image["width"]
        try:
            if isinstance(mask, list):
                if not all((np.abs(np.asarray(polygon, float)) < FARTHEST).all() for polygon in mask):
                    raise ValueError("a coordinate is far outside")
                tools = _import_mask_tools(self._file)
                counts = tools.merge(tools.frPyObjects(mask, height, width))["counts"].decode()
            else:
                counts = mask["counts"]
            run_lengths = decompress(counts) if isinstance(counts, str) else counts
            if sum(run_lengths) != height * width:
                raise ValueError(f"its run lengths do not add up to the {height * width} pixels of its image")
        except (TypeError, ValueError) as error:
            raise UserError(f"{self._file}: the mask of annotation {annotation['id']} is damaged: {error}") from error
        return run_lengths

    def _mask(self, annotation: dict[str, Any], image: dict[str, Any]) -> np.ndarray:
        run_lengths = self._run_lengths(annotation, image)
        values = np.arange(len(run_lengths)) % 2
        return np.repeat(values.astype(np.uint8), run_lengths).reshape(image["width"], image["height"]).T


def load_detection_source(
    data: str, split: str, *, skip_empty: bool = False, root: Path | None = None
) -> DetectionSource:
    """Open one split of a detection data set.

    `data` is one of

    - "nuclei": the embedded microscope image, with the splits train and test;
    - a folder in COCO's layout: `annotations/instances_NAME.json` beside the image folder `NAME` or `images/NAME`;
    - a folder in Roboflow's layout: folders `NAME`, each with `_annotations.coco.json` beside its images.

    NAME tells the split and may end in a year: train2017, val2017, valid, test ...

    Args:
        data: Folder or name.
        split: A member of `available_detection_splits`.
        skip_empty: Whether to leave out images without an instance to learn from; for training.
        root: The folder that relative paths start from.

    Returns:
        The images, in the order of their ids.

    Raises:
        UserError: The data or the split does not exist, its annotations or images are at fault (see `CocoImages`), or
            its categories differ from the training set's.
    """
    places = _find_splits(data, root)
    if split not in places:
        raise UserError(unknown_name(f"split of data set {data!r}:", split, places))
    annotation_file, image_folder = places[split]
    source = CocoImages(annotation_file, image_folder, skip_empty=skip_empty)
    if split != "train" and "train" in places:
        _check_same_categories(source, annotation_file, places["train"][0])
    return source


def available_detection_splits(data: str, root: Path | None = None) -> tuple[str, ...]:
    """Name the splits of a detection data set.

    Args:
        data: See `load_detection_source`.
        root: The folder that relative paths start from.

    Returns:
        Some of "train", "validation" and "test", in this order.

    Raises:
        UserError: There is no such data set, or two places could be the same split.
    """
    return tuple(_find_splits(data, root))


def _find_splits(data: str, root: Path | None) -> dict[str, tuple[Path, Path]]:
    """The annotation file and the image folder of each split."""
    if data == nuclei.NAME:
        return {split: (nuclei.annotation_file(split), nuclei.FOLDER) for split in nuclei.SPLITS}
    path = Path(root or ".", Path(data).expanduser())
    if not data or not path.is_dir():
        problem = f"is a file: give the folder of {LAYOUTS}" if data and path.is_file() else "does not exist"
        known = "" if "/" in data else " " + unknown_name("data set", data, (nuclei.NAME,))
        raise UserError(f"data folder {path} {problem}.{known}")

    named = []
    for file in sorted(path.glob("annotations/instances_*.json")):
        name = file.stem.removeprefix("instances_")
        folders = path / name, path / "images" / name
        named.append((name, file, next((folder for folder in folders if folder.is_dir()), folders[0])))
    named += [(file.parent.name, file, file.parent) for file in sorted(path.glob("*/_annotations.coco.json"))]

    splits: dict[str, tuple[Path, Path]] = {}
    for split, names in SPLIT_NAMES.items():
        found = [(file, folder) for name, file, folder in named if re.sub(r"\d+$", "", name) in names]
        if len(found) > 1:
            files = ", ".join(str(file.relative_to(path)) for file, _ in found)
            raise UserError(f"{path} holds more than one {split} split: keep one of {files}")
        if found:
            splits[split] = found[0]
    if not splits:
        raise UserError(f"{path} holds no detection data: expected {LAYOUTS}, NAME being train, val or test")
    return splits


def _check_same_categories(source: CocoImages, file: Path, train_file: Path) -> None:
    found = dict(zip(source.category_ids, source.class_names, strict=True))
    entries = by_id(read_lists(train_file)["categories"], "category", CATEGORY, train_file)
    expected = {category: entry["name"] for category, entry in entries.items()}
    for category in sorted(found | expected):
        ours, theirs = found.get(category, "missing"), expected.get(category, "missing")
        if ours != theirs:
            raise UserError(
                f"{file} and {train_file} must have the same categories, but category {category} is {ours!r} in the "
                f"one and {theirs!r} in the other"
            )


def _import_mask_tools(file: Path) -> Any:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise UserError(f"reading {file} needs pycocotools: {command_for_extra('detection')}") from error
    return mask
