"""Annotation files in COCO's format, with one mistake or none."""

import copy
import io
import json
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from halonet.data.detection.coco import load_detection_source
from tests.wrong_inputs.case import INFINITY, NAN, Case, shortened

WIDTH, HEIGHT = 12, 9
POLYGON = [[2, 3, 7, 3, 7, 8, 2, 8]]
PIXELS = WIDTH * HEIGHT
FIRST, SECOND = 11, 12  # ids of the annotations
CONTENT: dict[str, Any] = {
    "images": [{"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT} for number in (1, 2)],
    "annotations": [
        {
            "id": number,
            "image_id": image,
            "category_id": 7,
            "bbox": [2, 3, 5, 5],
            "area": 25,
            "iscrowd": 0,
            "segmentation": POLYGON,
        }
        for number, image in ((FIRST, 1), (SECOND, 2))
    ],
    "categories": [{"id": 7, "name": "ant"}, {"id": 90, "name": "zebra"}],
}

Wrong = list[tuple[Any, tuple[str, ...]]]
INTEGER = "must be of type int"
HUGE = 10**30


def _whole(field: str, *values: Any) -> Wrong:
    """Values whose type is wrong for a whole number."""
    wrong = ("x", 1.5, True, None, [1], {}, NAN, INFINITY, "1.5", "")
    return [(value, (f"{field} is", INTEGER)) for value in (*wrong, *values)]


def _size(field: str) -> Wrong:
    limit = "from 1 to 89,478,485"
    range_ = [(value, ("image 2", limit)) for value in (0, -1, 10**9, HUGE, 1e300)]
    # Valid sizes, but not the image's.
    return [*_whole(field), *range_, (2_000, ("image 2", "100 to 1")), (11, ("2.png has 12 x 9 pixels", "(image 2)"))]


LEADS_OUT = ("image 2 has the file_name", "below the images' folder")
# By the list and the field of its last entry.
FIELDS: dict[tuple[str, str], Wrong] = {
    ("images", "id"): [
        *_whole("id"),
        (1, ("two image entries", "id 1")),
        (HUGE, ("at most 2^53",)),
        (-(2**53) - 1, ("at most 2^53",)),
        (5, (f"annotation {SECOND} has the image_id 2", "lists no such image")),
    ],
    ("images", "file_name"): [
        *((value, LEADS_OUT) for value in ("", "../2.png", "a/../../2.png", "/etc/passwd", "C:\\2.png", "..\\2.png")),
        *((value, LEADS_OUT) for value in ("2.png\0", "..", "a/..")),
        *((value, ("file_name is", "must be of type str")) for value in (2, None, ["2.png"], True)),
        *(
            (value, ("1 of 2 images", "missing", "put them there"))
            for value in ("3.png", "a/2.png", "x" * 5000, "\ud800")
        ),
        (".", ("1 of 2 images", "missing")),
    ],
    ("images", "width"): _size("width"),
    ("images", "height"): [each for each in _size("height") if each[0] != 11],
    ("categories", "id"): [
        *_whole("id"),
        (7, ("two category entries", "id 7")),
        (HUGE, ("at most 2^53",)),
    ],
    ("categories", "name"): [(value, ("name is", "must be of type str")) for value in (3, None, ["ant"], False)],
    ("annotations", "id"): [
        *_whole("id"),
        (FIRST, ("two annotation entries", f"id {FIRST}")),
        (HUGE, ("at most 2^53",)),
    ],
    ("annotations", "image_id"): [
        *_whole("image_id"),
        *((value, ("has the image_id", "lists no such image")) for value in (3, -2, 0, HUGE, "3")),
    ],
    ("annotations", "category_id"): [
        *_whole("category_id"),
        *((value, ("has the category_id", "lists no such category")) for value in (3, -7, 0, HUGE, "8")),
    ],
    ("annotations", "iscrowd"): [
        (value, (f"annotation {SECOND} has the iscrowd", "0 or 1")) for value in (2, -1, "x", 0.5, None, [0], "2", NAN)
    ],
    ("annotations", "bbox"): [
        (value, (f"annotation {SECOND} has the bbox", "four numbers"))
        for value in (None, [], [1, 2, 3], [1, 2, 3, 4, 5], "1234", {}, [1, 2, 3, None], [1, 2, 3, "x"], [[1], 2, 3, 4])
    ],
}

FAR_BOX, NEGATIVE, NO_AREA = "not finite or leads too far", "negative width or height", "no area inside its image"
FEW_POINTS, NO_NUMBERS, FAR = "3 points or more", "other than numbers", "polygon that is not finite or leads too far"
NEITHER, OTHER_SIZE, DAMAGED = "neither polygons nor run lengths", "not of its image's size", "run lengths are damaged"


def _lengths(counts: Any, size: Any = (HEIGHT, WIDTH)) -> dict[str, Any]:
    return {"counts": counts, "size": list(size) if isinstance(size, tuple) else size}


# Reasons to leave an annotation out with a note, or to refuse the file if no annotation remains.
USELESS: dict[str, list[tuple[Any, str]]] = {
    "bbox": [
        *(([2, 3, value, 5], FAR_BOX) for value in (NAN, INFINITY, -INFINITY, 1e300, 10**400, "nan", "inf", 2**21)),
        *(([value, 3, 5, 5], FAR_BOX) for value in (NAN, -1e300)),
        *((box, NEGATIVE) for box in ([7, 8, -5, -5], [2, 3, 5, -1])),
        *((box, NO_AREA) for box in ([2, 3, 0, 5], [12, 3, 5, 5], [-9, 3, 5, 5], [2, 900, 5, 5], [0, 0, 0, 0])),
    ],
    "segmentation": [
        *(([polygon], FEW_POINTS) for polygon in ([], [1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7], 3, "x", {})),
        *(([[2, 3, 7, 3, 7, value]], NO_NUMBERS) for value in ("8", None, [8], True)),
        *(([[2, 3, 7, 3, 7, value]], FAR) for value in (NAN, INFINITY, 1e300, 10**400, 2**21)),
        ([[0, 0, 2**19, 0] * 4], FAR),
        *((mask, NEITHER) for mask in (3, "x", True, {"size": [9, 12]}, {"counts": 3, "size": [9, 12]}, {"a": 1})),
        *((_lengths([PIXELS], size), OTHER_SIZE) for size in ((WIDTH, HEIGHT), (9,), (0, 0), None, "9 12", (HUGE, 1))),
        *(
            (_lengths(counts), DAMAGED)
            for counts in ([], [PIXELS - 1], [PIXELS + 1], [-1, PIXELS + 1], [PIXELS, 0.0], [True], ["108"], [HUGE])
        ),
        *((_lengths(counts), DAMAGED) for counts in ("", "x", "\0", "ü", "~" * 9, "o" * 99, "0" * 5000, "l", "P", " ")),
    ],
}

# Valid neighbors: what to change in the last entry of a list.
RIGHT: list[tuple[str, dict[str, Any]]] = [
    ("images", {"id": "2"}),
    ("images", {"width": 12.0, "height": "9"}),
    ("images", {"license": 3, "coco_url": None}),
    ("categories", {"id": 0}),
    ("categories", {"id": -(2**53)}),
    ("categories", {"name": "ant"}),
    ("categories", {"name": "größer \ud83e", "supercategory": 7}),
    ("annotations", {"id": 0}),
    ("annotations", {"id": 2**53}),
    ("annotations", {"image_id": 2.0, "category_id": "90"}),
    ("annotations", {"iscrowd": 1, "segmentation": _lengths([27, 5, PIXELS - 32])}),
    ("annotations", {"iscrowd": True}),
    ("annotations", {"bbox": [-2, -3, 9, 8.5]}),
    ("annotations", {"bbox": ["2", "3", "5", "5"]}),
    ("annotations", {"bbox": [0, 0, 1e6, 2**20]}),
    ("annotations", {"area": NAN}),
    ("annotations", {"area": "large"}),
    ("annotations", {"segmentation": _lengths([0, PIXELS])}),
    ("annotations", {"segmentation": _lengths("0\\3")}),
    ("annotations", {"segmentation": [[-5, 3, 700, 3, 7, 8.5]]}),
    ("annotations", {"segmentation": [*POLYGON, [0, 0, 1, 0, 1, 1]]}),
]
REQUIRED = (
    *("images.id", "images.file_name", "images.width", "images.height", "categories.id", "categories.name"),
    *("annotations.image_id", "annotations.category_id"),
)
OPTIONAL = ("annotations.id", "annotations.iscrowd", "annotations.area")

LACKS = "lacks the list"
TEXTS: dict[str, tuple[str, ...]] = {
    "": ("not JSON",),
    "{": ("not JSON",),
    "[]": ("not in COCO's format", LACKS),
    "3": ("not in COCO's format", LACKS),
    "null": ("not in COCO's format", LACKS),
    '{"images": [], "annotations": []}': (LACKS, "categories"),
    '{"images": {}, "annotations": [], "categories": []}': (LACKS, "images"),
    '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}': ("lists no images",),
    '{"images": [{}], "annotations": [], "categories": []}': ("lists no categories",),
    "[" * 100_000: ("not JSON",),
    '{"a": ' + "9" * 5_000 + "}": ("not JSON",),
    "\udcff": ("not JSON",),
}


@cache
def _picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), "gray").save(file, "PNG")
    return file.getvalue()


def make_coco_file(random: Random) -> Case:
    """An annotation file with one mistake, or none."""
    content = copy.deepcopy(CONTENT)
    ways = {_wrong_field: 8, _useless: 5, _missing: 1, _wrong_entry: 1, _too_many: 1, _right: 4, _right_without: 1}
    way = random.choices([*ways, None], weights=[*ways.values(), 2])[0]
    if way is None:
        written, expected = random.choice(list(TEXTS.items()))
        return Case(f"text {shortened(written)}", lambda folder: _read(folder, written), ("train.json", *expected))
    text, expected, noted = way(random, content)
    written = json.dumps(content)
    return Case(text, lambda folder: _read(folder, written), expected, noted)


Outcome = tuple[str, tuple[str, ...], tuple[str, ...]]


def _wrong_field(random: Random, content: dict[str, Any]) -> Outcome:
    (kind, field), wrong = random.choice(list(FIELDS.items()))
    value, expected = random.choice(wrong)
    content[kind][-1][field] = value
    return f"{kind}.{field}: {shortened(value)}", ("instances_train.json", *expected), ()


def _useless(random: Random, content: dict[str, Any]) -> Outcome:
    field, wrong = random.choice(list(USELESS.items()))
    value, reason = random.choice(wrong)
    content["annotations"][-1][field] = value
    expected = (reason, f"annotation {SECOND}")
    if random.random() < 0.5:
        return f"one of two has {field}: {shortened(value)}", (), ("1 of 2 annotations are left out", *expected)
    del content["annotations"][0]
    if reason == NO_AREA:  # not for training, but evaluation counts it, as COCO's does
        return f"the only {field}: {shortened(value)}", (), ("1 of 1 annotations are left out", *expected)
    return f"the only {field}: {shortened(value)}", (*expected, "no annotation is usable"), ()


def _missing(random: Random, content: dict[str, Any]) -> Outcome:
    kind, _, field = random.choice(REQUIRED).partition(".")
    del content[kind][-1][field]
    return f"no {kind}.{field}", (f"{field} is missing",), ()


def _wrong_entry(random: Random, content: dict[str, Any]) -> Outcome:
    kind = random.choice(list(content))
    value = random.choice([3, None, "x", [], True])
    content[kind].append(value)
    return f"{kind} ends with {value!r}", (" number 3 is", "must be an object"), ()


def _too_many(random: Random, content: dict[str, Any]) -> Outcome:
    """More than fits into memory."""
    kind = random.choice(["annotations", "categories", "masks"])
    if kind == "categories":
        content["categories"] += [{"id": 100 + number, "name": "x"} for number in range(2**15)]
        return "32,770 categories", ("lists 32,770 categories", "may list 32,768"), ()
    entry = content["annotations"][-1]
    count = 10_001 if kind == "annotations" else 100
    content["annotations"] += [entry | {"id": 100 + number} for number in range(count - 1)]
    if kind == "annotations":
        return "10,001 annotations of an image", ("image 2 has 10,001 annotations", "may have 10,000"), ()
    content["images"][-1] |= {"width": 9_000, "height": 9_900}
    return "100 masks of 89 million pixels", ("the masks of image 2 take 8 GiB", "may take 8"), ()


def _right(random: Random, content: dict[str, Any]) -> Outcome:
    kind, changes = random.choice(RIGHT)
    content[kind][-1] |= changes
    return f"{kind}: {shortened(changes)}", (), ()


def _right_without(random: Random, content: dict[str, Any]) -> Outcome:
    kind, _, field = random.choice(OPTIONAL).partition(".")
    del content[kind][-1][field]
    return f"no {kind}.{field}", (), ()


def _read(folder: Path, text: str) -> None:
    """Write a data set with this annotation file, and read its annotations and every image."""
    write_coco(folder, text)
    list(load_detection_source(str(folder), "train"))


def write_coco(folder: Path, text: str, split: str = "train") -> None:
    """Write a split in COCO's layout: an annotation file, and the two images of `CONTENT`."""
    for name in ("annotations", split):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "annotations" / f"instances_{split}.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    for image in CONTENT["images"]:
        (folder / split / image["file_name"]).write_bytes(_picture())
