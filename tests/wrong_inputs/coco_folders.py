"""Valid and invalid folders of detection data."""

import copy
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from halonet.data.detection.coco import load_detection_source
from tests.data.samples import png_of_declared_size
from tests.wrong_inputs.case import INFINITY, NAN, Case
from tests.wrong_inputs.coco_files import CONTENT, write_coco

ANNOTATIONS = "annotations/instances_train.json"
TEXT = json.dumps(CONTENT)


@dataclass(frozen=True)
class Layout:
    """A change to a folder in COCO's layout with the split "train", and the expected outcome of opening it."""

    text: str
    change: Callable[[Path], object]
    expected: tuple[str, ...] = ()
    noted: tuple[str, ...] = ()
    data: str = "{folder}"
    split: str = "train"
    options: dict[str, Any] = field(default_factory=dict)


def _nothing(folder: Path) -> None:
    pass


def _move(file: str = "", images: str = "train") -> Callable[[Path], object]:
    """Move the annotation file and the image folder."""

    def move(folder: Path) -> None:
        for old, new in ((ANNOTATIONS, file or ANNOTATIONS), ("train", images)):
            (folder / new).parent.mkdir(parents=True, exist_ok=True)
            (folder / old).rename(folder / new)

    return move


def _image(content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "train/2.png").write_bytes(content)


def _link(to: str) -> Callable[[Path], object]:
    def link(folder: Path) -> None:
        (folder / "train/2.png").unlink()
        (folder / "train/2.png").symlink_to(to)

    return link


def _validation(**changes: Any) -> Callable[[Path], object]:
    return lambda folder: write_coco(folder, json.dumps(copy.deepcopy(CONTENT) | changes), "val")


def _as_folder(name: str) -> Callable[[Path], object]:
    def replace(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return replace


def _huge(folder: Path) -> None:
    os.truncate(folder / ANNOTATIONS, 4 * 2**30 + 1)


OTHER_CLASSES = ("must have the same categories", "category 90 is 'horse' in the one and 'zebra' in the other")
ONE_IMAGE = json.dumps(CONTENT | {"images": CONTENT["images"][:1], "annotations": CONTENT["annotations"][:1]})
LAYOUTS = [
    Layout("as it should be", _nothing),
    Layout("Roboflow's layout", _move("train/_annotations.coco.json")),
    Layout("one file of any name", _move("mine.json", "images")),
    Layout("a year in the name", _move("annotations/instances_train2017.json", "images/train2017")),
    Layout("images in images/train", _move(images="images/train")),
    Layout("a byte order mark", lambda folder: (folder / ANNOTATIONS).write_text("\ufeff" + TEXT, "utf-8")),
    Layout("a validation split", _validation(), split="validation"),
    Layout("one of two images held out", _nothing, split="validation", options={"hold_out": 0.5}),
    Layout("a link within the folder", _link("1.png")),
    Layout("boxes alone", _nothing, options={"masks": False}),
    Layout("no such folder", _nothing, ("data folder", "does not exist"), data="{folder}/nowhere"),
    Layout("no such name", _nothing, ("unknown data set 'nuclie'", "Did you mean 'nuclei'?"), data="nuclie"),
    Layout("a name with NUL", _nothing, ("data folder", "does not exist"), data="{folder}/a\0b"),
    Layout("a name of 5,000 letters", _nothing, ("xxx", "cannot be the name of a folder"), data="x" * 5_000),
    Layout("the home of nobody", _nothing, ("~nobody_here", "cannot be the name of a folder"), data="~nobody_here/a"),
    Layout("a file", _nothing, ("is a file", "give the folder"), data="{folder}/" + ANNOTATIONS),
    Layout("no annotations", lambda folder: (folder / ANNOTATIONS).unlink(), ("holds no detection data", "expected")),
    Layout(
        "two files without a split's name",
        lambda folder: (
            [(folder / name).write_text(TEXT) for name in ("a.json", "b.json")] + [(folder / ANNOTATIONS).unlink()]
        ),
        ("holds several annotation files", "name them after train, val or test"),
    ),
    Layout(
        "two train splits",
        lambda folder: (folder / "annotations/instances_train2017.json").write_text(TEXT),
        ("more than one train split", "keep one of"),
    ),
    Layout("no images", _move(images="pictures"), ("image folder", "does not exist", "put the images there")),
    Layout("an image is a folder", _as_folder("train/2.png"), ("1 of 2 images", "'2.png'", "put them there")),
    Layout(
        "an image is not there", lambda folder: (folder / "train/2.png").unlink(), ("1 of 2", "'2.png'", "put them")
    ),
    Layout("an image is empty", _image(b""), ("2.png is empty (0 bytes)",)),
    Layout("an image is no image", _image(b"hello" * 99), ("2.png is not an image that can be read",)),
    Layout("an image is huge", _image(png_of_declared_size(30_000, 30_000)), ("2.png is refused", "Scale it down")),
    Layout("a link out", _link("/etc/passwd"), ("image 2 is '2.png', a link that leads out", "put the file there")),
    Layout("a link to itself", _link("2.png"), ("1 of 2 images", "'2.png'", "put them there")),
    Layout("annotations are a folder", _as_folder(ANNOTATIONS), ("cannot be read", "json")),
    Layout("over 4 GiB", _huge, ("4,294,967,297 bytes", "may have 4,294,967,296", "split the data")),
    Layout("no such split", _nothing, ("unknown split of data set", "'test'", "Known: train"), split="test"),
    Layout("no validation", _nothing, ("unknown split", "set data.hold_out to 0.2"), split="validation"),
    Layout(
        "one image to hold out",
        lambda folder: (folder / ANNOTATIONS).write_text(ONE_IMAGE),
        ("1 image is too few to hold out a fraction of 0.5", "add images"),
        options={"hold_out": 0.5},
    ),
    *(
        Layout(
            f"hold out {part}", _nothing, (f"hold_out is {part}", "at least 0 and below 1"), options={"hold_out": part}
        )
        for part in (-0.1, 1, 2, NAN, INFINITY)
    ),
    Layout(
        "other categories",
        _validation(categories=[CONTENT["categories"][0], {"id": 90, "name": "horse"}]),
        OTHER_CLASSES,
        split="validation",
    ),
]


def make_coco_folder(random: Random) -> Case:
    """A folder of detection data with one mistake, or none."""
    layout = random.choice(LAYOUTS)
    return Case(layout.text, lambda folder: read_layout(folder, layout), layout.expected, layout.noted)


def read_layout(folder: Path, layout: Layout) -> None:
    """Write and change a folder, and read all of it."""
    write_coco(folder, TEXT)
    layout.change(folder)
    list(load_detection_source(layout.data.replace("{folder}", str(folder)), layout.split, **layout.options))
