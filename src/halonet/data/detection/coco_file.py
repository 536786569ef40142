"""Reading and checking COCO's annotation files, as a whole and before anything else happens."""

import gc
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halonet.data.images import ASPECT_LIMIT, PIXEL_LIMIT
from halonet.errors import UserError

Entry = dict[str, Any]

# Required fields and their types.
IMAGE = {"id": int, "file_name": str, "width": int, "height": int}
CATEGORY = {"id": int, "name": str}
ANNOTATION = {"id": int, "image_id": int, "category_id": int}

FILE_LIMIT = 4 * 2**30  # bytes; COCO's own training set has 0.45 GB
CATEGORY_LIMIT = 2**15  # the largest public set of box categories has 13,204
INSTANCE_LIMIT = 10_000  # per image; each is compared with every anchor
ID_LIMIT = 2**53  # many tools round larger ones
NAMED = 3  # how many of a file's faults a message quotes

_WHOLE_NUMBER = re.compile(r"\s*[+-]?\d{1,15}\s*", re.ASCII)
# Parent folders, absolute paths, drives and NUL, for Unix and Windows: the same data may be read on both.
_LEADS_OUT = re.compile(r"(^|[/\\])\.\.([/\\]|$)|^[/\\]|^[A-Za-z]:|\0")


@dataclass
class CocoFile:
    """A file's checked content.

    Attributes:
        images: By id.
        annotations: In the file's order, each with an `id` and an `iscrowd` of 0 or 1.
        categories: By id.
        as_text: How many numbers were written as text.
    """

    images: dict[int, Entry]
    annotations: list[Entry]
    categories: dict[int, Entry]
    as_text: int = 0


class Faults:
    """Collects the faults of a file, for one error that counts them and quotes the first."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.found: list[str] = []

    def add(self, fault: str) -> None:
        """Add a fault."""
        self.found.append(fault)

    def refuse(self) -> None:
        """Raise a UserError of one line if there are faults."""
        if not self.found:
            return
        more = len(self.found) - NAMED
        shown = "; ".join(self.found[:NAMED]) + (f"; and {more:,} more" if more > 0 else "")
        count = f"{len(self.found):,} faults: " if len(self.found) > 1 else ""
        raise UserError(f"{self.file}: {count}{shown}")


def read_annotations(file: Path) -> CocoFile:
    """Read and check a file in COCO's format for instances.

    Annotations without `id` are numbered, those without `iscrowd` are not crowds, and numbers written as text are
    converted.

    Raises:
        UserError: The file cannot be read, is too large, is not JSON, not in COCO's format, or contradicts itself; it
            counts the faults and quotes the first.
    """
    lists = read_lists(file)
    faults, reader = Faults(file), _Fields()
    images = reader.by_id(lists["images"], "image", IMAGE, faults)
    categories = reader.by_id(lists["categories"], "category", CATEGORY, faults)
    _number(lists["annotations"])
    annotations = reader.by_id(lists["annotations"], "annotation", ANNOTATION, faults)
    for image in images.values():
        if fault := _image_fault(image):
            faults.add(f"image {image['id']} {fault}")
    for annotation in annotations.values():
        if fault := reader.annotation_fault(annotation, images, categories):
            faults.add(f"annotation {annotation['id']} {fault}")
    _limit(annotations, categories, faults)
    faults.refuse()
    return CocoFile(images, list(annotations.values()), categories, reader.as_text)


def read_lists(file: Path) -> dict[str, list[Any]]:
    """Read a file's lists of images, annotations and categories, unchecked; raises UserError if one is missing."""
    try:
        size = file.stat().st_size
        if size > FILE_LIMIT:
            raise UserError(f"annotation file {file} has {size:,} bytes, but may have {FILE_LIMIT:,}: split the data")
        with paused_collector():
            content = json.loads(file.read_bytes())
    except OSError as error:
        raise UserError(f"annotation file {file} cannot be read: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"annotation file {file} is not JSON: {error}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or brackets nested as deep
        if isinstance(error, UserError):
            raise
        raise UserError(f"annotation file {file} is not JSON that can be read: {error}") from error
    keys = ("images", "annotations", "categories")
    missing = [key for key in keys if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if missing:
        raise UserError(f"{file} is not in COCO's format for instances: it lacks the list {' and '.join(missing)}")
    if empty := [key for key in ("images", "categories") if not content[key]]:
        raise UserError(f"{file} lists no {' and no '.join(empty)}")
    return content


@contextmanager
def paused_collector() -> Iterator[None]:
    """Disable the garbage collector, which would scan millions of numbers repeatedly and double the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read_categories(file: Path) -> tuple[dict[int, Entry], set[int]]:
    """Read a file's categories by id, and the ids that annotations use; the rest is not checked."""
    lists, faults = read_lists(file), Faults(file)
    categories = _Fields().by_id(lists["categories"], "category", CATEGORY, faults)
    faults.refuse()
    used = {str(entry.get("category_id")) for entry in lists["annotations"] if isinstance(entry, dict)}
    return categories, {category for category in categories if str(category) in used}


def outer_category(categories: dict[int, Entry], used: Iterable[int]) -> int | None:
    """The id of Roboflow's category 0, which is the supercategory of all others and unused by annotations, or None."""
    name = categories.get(0, {}).get("name")
    others = [entry for category, entry in categories.items() if category != 0]
    is_outer = name is not None and others and all(entry.get("supercategory") == name for entry in others)
    return 0 if is_outer and 0 not in set(used) else None


def distinct_labels(names: list[str], categories: list[Entry]) -> list[str]:
    """Make category names unique by appending the supercategory to duplicates, or else the id.

    Args:
        names: By label - 1.
        categories: By label - 1, with `id` and optional `supercategory`.
    """
    labels = list(names)
    owners = [entry.get("supercategory") for entry in categories]
    for longer in (
        [f"{name} ({owner})" if isinstance(owner, str) else name for name, owner in zip(names, owners, strict=True)],
        [f"{name} (id {entry['id']})" for name, entry in zip(names, categories, strict=True)],
    ):
        counts = Counter(labels)
        labels = [more if counts[label] > 1 else label for label, more in zip(labels, longer, strict=True)]
    return labels


def _number(entries: list[Any]) -> None:
    """Give annotations without an id one that is larger than all others."""
    entries = [entry for entry in entries if isinstance(entry, dict)]
    if all("id" in entry for entry in entries):
        return
    known = (int(entry["id"]) for entry in entries if isinstance(entry.get("id"), int | float | str) and _whole(entry))
    fresh = itertools.count(1 + max(known, default=0))
    for entry in entries:
        if "id" not in entry:
            entry["id"] = next(fresh)


def _whole(entry: Entry) -> bool:
    return isinstance(entry["id"], int) or bool(_WHOLE_NUMBER.fullmatch(str(entry["id"])))


class _Fields:
    """Checks fields, and counts numbers written as text."""

    def __init__(self) -> None:
        self.as_text = 0

    def by_id(self, entries: list[Any], kind: str, fields: dict[str, type], faults: Faults) -> dict[int, Entry]:
        """Check that entries have the required fields and unique ids; returns them by id."""
        found: dict[int, Entry] = {}
        for position, entry in enumerate(entries, 1):
            if type(entry) is not dict:
                faults.add(f"{kind} number {position} is {entry!r:.60}, but must be an object")
                continue
            for field, expected in fields.items():
                if type(entry.get(field)) is not expected and not self._mend(entry, field, expected):
                    name = f"{kind} {entry['id']!r:.40}" if "id" in entry else f"{kind} number {position}"
                    problem = f"{field} is {entry[field]!r:.60}" if field in entry else f"{field} is missing"
                    faults.add(f"of {name}, {problem}, but must be of type {expected.__name__}")
            number = entry.get("id")
            if type(number) is int:
                if number in found:
                    faults.add(f"two {kind} entries have the id {number}: give each its own")
                found[number] = entry
        for number in found:
            if not -ID_LIMIT <= number <= ID_LIMIT:
                faults.add(f"{kind} {str(number)[:40]} has too large an id: it must be at most 2^53")
        return found

    def annotation_fault(self, annotation: Entry, images: dict[int, Entry], categories: dict[int, Entry]) -> str | None:
        """How an annotation contradicts its file or the format, or None; its box may still be unusable."""
        for kind, known in (("image", images), ("category", categories)):
            number = annotation.get(f"{kind}_id")
            if type(number) is int and number not in known:  # other types are already a fault
                return f"has the {kind}_id {str(number)[:40]}, but the file lists no such {kind}"
        crowd = annotation.setdefault("iscrowd", 0)
        if type(crowd) is not int or crowd not in (0, 1):
            if not (isinstance(crowd, bool) or self._mend(annotation, "iscrowd", int)):
                return f"has the iscrowd {crowd!r:.40}, but it must be 0 or 1"
            annotation["iscrowd"] = int(annotation["iscrowd"])
            if annotation["iscrowd"] not in (0, 1):
                return f"has the iscrowd {crowd!r:.40}, but it must be 0 or 1"
        box = annotation.get("bbox")
        if type(box) is not list or len(box) != 4 or not self._numbers(box):
            return f"has the bbox {box!r:.80}, but it must be four numbers: x, y, width and height in pixels"
        return None

    def _mend(self, entry: Entry, field: str, expected: type) -> bool:
        """Convert a whole number written as text or as a float; returns whether it is one."""
        value = entry.get(field)
        if expected is int and isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value):
            self.as_text += 1
        elif not (expected is int and isinstance(value, float) and value.is_integer()):
            return False
        entry[field] = int(value)
        return True

    def _numbers(self, values: list[Any]) -> bool:
        """Whether all values are numbers; those written as text are converted in place."""
        for index, value in enumerate(values):
            if type(value) is float or type(value) is int:
                continue
            if not isinstance(value, str):
                return False
            try:
                values[index] = float(value)
            except ValueError:
                return False
            self.as_text += 1
        return True


def _image_fault(image: Entry) -> str | None:
    name, width, height = image.get("file_name"), image.get("width"), image.get("height")
    if isinstance(name, str) and (not name or _LEADS_OUT.search(name)):
        return f"has the file_name {name!r:.80}, but it must lead to a file below the images' folder"
    if type(width) is not int or type(height) is not int:
        return None  # already a fault
    if not (width >= 1 and height >= 1 and width * height <= PIXEL_LIMIT):
        size = f"{str(width)[:20]} x {str(height)[:20]}"
        return f"has {size} pixels, but must have from 1 to {PIXEL_LIMIT:,}: scale it down"
    if max(width, height) > ASPECT_LIMIT * min(width, height):
        return f"has {width} x {height} pixels, which is over {ASPECT_LIMIT} to 1: crop it"
    return None


def _limit(annotations: dict[int, Entry], categories: dict[int, Entry], faults: Faults) -> None:
    """Refuse numbers of categories and instances that would exhaust memory later."""
    if len(categories) > CATEGORY_LIMIT:
        faults.add(f"it lists {len(categories):,} categories, but may list {CATEGORY_LIMIT:,}")
    images = [annotation.get("image_id") for annotation in annotations.values()]
    for image, count in Counter(image for image in images if type(image) is int).items():
        if count > INSTANCE_LIMIT:
            faults.add(f"image {image} has {count:,} annotations, but may have {INSTANCE_LIMIT:,}: cut it into parts")
