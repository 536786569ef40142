"""COCO's annotation files: read as a whole, and free of contradictions before anything else happens."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

from halonet.errors import UserError

# The fields that an entry must have, with their types.
IMAGE = {"id": int, "file_name": str, "width": int, "height": int}
CATEGORY = {"id": int, "name": str}
ANNOTATION = {"id": int, "image_id": int, "category_id": int}


def read_annotations(file: Path) -> tuple[dict[int, dict[str, Any]], list[dict[str, Any]], dict[int, dict[str, Any]]]:
    """Read a file as a whole.

    Annotations without `id` are numbered, and those without `iscrowd` are no crowds.

    Args:
        file: In COCO's format for instances.

    Returns:
        The images by id, the annotations, and the categories by id, free of contradictions.

    Raises:
        UserError: The file cannot be read, is not JSON or not COCO's, or contradicts itself; it names the entry.
    """
    lists = read_lists(file)
    images = by_id(lists["images"], "image", IMAGE, file)
    categories = by_id(lists["categories"], "category", CATEGORY, file)
    entries = [entry for entry in lists["annotations"] if isinstance(entry, dict)]
    fresh = itertools.count(1 + max((entry["id"] for entry in entries if isinstance(entry.get("id"), int)), default=0))
    for entry in entries:
        if "id" not in entry:
            entry["id"] = next(fresh)
        entry.setdefault("iscrowd", 0)
    annotations = by_id(lists["annotations"], "annotation", ANNOTATION, file)
    for annotation in annotations.values():
        if fault := _fault(annotation, images, categories):
            raise UserError(f"{file}: annotation {annotation['id']} {fault}")
    return images, list(annotations.values()), categories


def read_lists(file: Path) -> dict[str, list[Any]]:
    """Read a file's images, annotations and categories, unchecked; raises UserError where there are none."""
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise UserError(f"annotation file {file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"annotation file {file} is not JSON: {error}") from error
    keys = ("images", "annotations", "categories")
    missing = [key for key in keys if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if missing:
        raise UserError(f"{file} is not in COCO's format for instances: it lacks the list {' and '.join(missing)}")
    if empty := [key for key in ("images", "categories") if not content[key]]:
        raise UserError(f"{file} lists no {' and no '.join(empty)}")
    return content


def by_id(entries: list[Any], kind: str, fields: dict[str, type], file: Path) -> dict[int, dict[str, Any]]:
    """Check that entries have their fields, and ids of their own; returns them by id."""
    found: dict[int, dict[str, Any]] = {}
    for place, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            raise UserError(f"{file}: {kind} number {place} is {entry!r}, but must be an object")
        for field, expected in fields.items():
            value = entry.get(field)
            if type(value) is not expected:
                name = f"{kind} {entry['id']!r}" if "id" in entry else f"{kind} number {place}"
                problem = f"{field} is {value!r}" if field in entry else f"{field} is missing"
                raise UserError(f"{file}: of {name}, {problem}, but must be of type {expected.__name__}")
        if entry["id"] in found:
            raise UserError(f"{file}: two {kind} entries have the id {entry['id']}: number them apart")
        found[entry["id"]] = entry
    return found


def _fault(
    annotation: dict[str, Any], images: dict[int, dict[str, Any]], categories: dict[int, dict[str, Any]]
) -> str | None:
    for kind, known in (("image", images), ("category", categories)):
        if annotation[f"{kind}_id"] not in known:
            return f"is of {kind} {annotation[f'{kind}_id']}, which the file does not list"
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        return f"has the bbox {box!r}, but must have four numbers: x, y, width and height in pixels"

    mask, image = annotation.get("segmentation"), images[annotation["image_id"]]
    if not mask:
        return "has no segmentation: instance segmentation needs masks, as polygons or run lengths"
    if isinstance(mask, list):
        lengths = [len(polygon) if isinstance(polygon, list) else 0 for polygon in mask]
        wrong = [length for length in lengths if length < 6 or length % 2]
        return f"has a polygon of {wrong[0]} numbers, but it must be x and y of 3 points or more" if wrong else None
    size = [image["height"], image["width"]]
    counts = mask.get("counts") if isinstance(mask, dict) else None
    if not isinstance(counts, list | str):
        return f"has the segmentation {mask!r:.80}, but must have polygons or run lengths (size and counts)"
    if mask.get("size") != size:
        return f"has a mask of size {mask.get('size')}, but its image has {size} (height and width)"
    if isinstance(counts, list) and not all(type(count) is int and count >= 0 for count in counts):
        return "has run lengths that are not numbers of pixels"
    return None


# pycocotools decodes too, but reads and writes beyond its memory where the string is damaged.
def decompress(counts: str) -> list[int]:
    """Read run lengths from COCO's string: five bits a character, the lowest first, from the fourth on as differences.

    Args:
        counts: The string.

    Raises:
        ValueError: It is damaged.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in counts:
        code = ord(character) - ord("0")
        if not 0 <= code < 64:
            raise ValueError(f"{character!r} is no digit of run lengths")
        value |= (code & 31) << shift
        shift += 5
        if code < 32:  # no more digits follow
            value -= (code & 16) << (shift - 4)
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            if lengths[-1] < 0:
                raise ValueError("a run length is negative")
            value = shift = 0
    if shift:
        raise ValueError("its run lengths are cut off")
    return lengths


def is_number(value: object) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def clipped_box(annotation: dict[str, Any], image: dict[str, Any]) -> tuple[float, float, float, float]:
    """The box as x0, y0, x1, y1 in pixels, cut to the image."""
    left, top, width, height = annotation["bbox"]
    right, bottom = min(left + width, image["width"]), min(top + height, image["height"])
    return float(max(left, 0)), float(max(top, 0)), float(right), float(bottom)
