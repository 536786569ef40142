"""Valid and invalid folders and tar files of labeled images."""

import io
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from halonet.data.classification.sources import load_source
from halonet.data.classification.survey import survey
from tests.data.samples import png_of_declared_size
from tests.wrong_inputs.case import Case

Change = Callable[[Path], object]


@dataclass(frozen=True)
class Layout:
    """A change to a folder with the splits train and val of two classes each, and the expected outcome of opening it.

    Attributes:
        text: A description of the change.
        change: Changes the folder.
        expected: Parts of the error message; empty if the folder is valid.
        noted: Parts of the note.
        data: The argument of `load_source`.
        split: The argument of `load_source`.
        options: Other arguments of `load_source`.
    """

    text: str
    change: Change
    expected: tuple[str, ...] = ()
    noted: tuple[str, ...] = ()
    data: str = "{folder}"
    split: str = "train"
    options: dict[str, Any] = field(default_factory=dict)


@cache
def picture(mode: str = "RGB", form: str = "PNG", size: tuple[int, int] = (12, 9)) -> bytes:
    """A small picture's file."""
    file = io.BytesIO()
    Image.new(mode, size).save(file, form)
    return file.getvalue()


def write_classes(folder: Path, images: int = 3) -> None:
    """Write the splits train and val of the classes a and b."""
    for place in ("train/a", "train/b", "val/a", "val/b"):
        (folder / place).mkdir(parents=True)
        for number in range(images):
            (folder / place / f"{number}.png").write_bytes(picture())


def _nothing(folder: Path) -> None:
    pass


def _write(name: str, content: bytes | None = None) -> Change:
    """Write a file, a picture by default, and the folders above it."""

    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture() if content is None else content)

    return write


def _make(*names: str) -> Change:
    return lambda folder: [(folder / name).mkdir(parents=True) for name in names]


def _remove(*names: str) -> Change:
    return lambda folder: [shutil.rmtree(folder / name) for name in names]


def _move(old: str, new: str) -> Change:
    return lambda folder: (folder / old).rename(folder / new)


def _link(name: str, to: str) -> Change:
    return lambda folder: (folder / name).symlink_to(to)


def _all(*changes: Change) -> Change:
    return lambda folder: [change(folder) for change in changes]


def _pack(*names: str, mode: str = "w", extra: Callable[[tarfile.TarFile], object] | None = None) -> Change:
    """Pack the class folders of the training images as set.tar, with an optional member of another kind."""

    def pack(folder: Path) -> None:
        with tarfile.open(folder / "set.tar", mode) as archive:  # pyright: ignore[reportArgumentType, reportCallIssue]
            for name in names:
                archive.add(folder / "train" / name.rpartition("/")[2], name)
            if extra is not None:
                extra(archive)

    return pack


def _member(name: str, content: bytes = b"", link: str = "", kind: bytes = tarfile.REGTYPE) -> Callable[..., object]:
    def add(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.type, info.linkname = len(content), kind, link
        archive.addfile(info, io.BytesIO(content))

    return add


def _cut(folder: Path) -> None:
    _pack("a", "b")(folder)
    content = (folder / "set.tar").read_bytes()
    (folder / "set.tar").write_bytes(content[:2_100])


FIRST = "train/a/0.png"
TAR = {"data": "{folder}/set.tar", "split": "all"}
NEW = {"data": "{folder}/new", "split": "all"}
SOUND = [
    Layout("as it should be", _nothing),
    Layout("the validation split", _nothing, split="validation"),
    Layout("one set", _nothing, data="{folder}/train", split="all"),
    Layout("one set, a part of it held out", _nothing, data="{folder}/train", options={"hold_out": 0.3}),
    Layout("capitals and other names of splits", _all(_move("train", "Training"), _move("val", "VALID"))),
    Layout("classes called 2 and 10", _all(_write("new/10/größer ☺.png"), _write("new/2/a.png")), **NEW),
    Layout("a capital suffix", _write("train/a/NEW.PNG")),
    Layout("a text beside the images", _write("train/a/notes.txt", b"x")),
    Layout("a hidden file", _write("train/a/.hidden.png", b"x"), noted=("hidden and system files and folders (1)",)),
    Layout("Windows' cache", _write("train/Thumbs.db", b"x")),
    Layout("a picture of another format", _write("train/a/0.tiff", b"x"), noted=("1 .tiff", "convert them")),
    Layout("a link that leads nowhere", _link("train/a/x.png", "nowhere"), noted=("lead nowhere (1)",)),
    Layout("a link to the folder above", _link("train/a/up", ".."), noted=("read already (1)",)),
    Layout(
        "a class is a link", _all(_move("train/a", "moved"), _link("train/a", "../moved")), noted=("left out moved",)
    ),
    *(Layout(f"an image of mode {mode}", _write(FIRST, picture(mode))) for mode in ("1", "L", "LA", "P", "RGBA")),
    Layout("a JPEG called .png", _write(FIRST, picture("CMYK", "JPEG"))),
    Layout("an image of one pixel", _write(FIRST, picture("RGB", "PNG", (1, 1)))),
    Layout("an image of 100 to 1", _write(FIRST, picture("L", "PNG", (300, 3)))),
    Layout("a tar file", _pack("a", "b"), **TAR),
    Layout("a tar file with a folder around all", _pack("set/a", "set/b"), **TAR),
    Layout("a tar file packed with a dot", _pack("./a", "./b"), **TAR),
    Layout(
        "a link within a tar file",
        _pack("a", "b", extra=_member("a/9.png", link="0.png", kind=tarfile.SYMTYPE)),
        **TAR,
    ),
    Layout("some images", _nothing, options={"train_images": 4}),
]

ASIDE = ("does not lie directly in a class folder", "move it there")
WRONG = [
    Layout("no such folder", _nothing, ("data folder", "nowhere does not exist"), data="{folder}/nowhere"),
    Layout("no such name", _nothing, ("unknown data set 'fashion-mnst'", "'fashion-mnist'?"), data="fashion-mnst"),
    Layout("no name", _nothing, ("unknown data set ''",), data=""),
    Layout("a name of 300 letters", _nothing, ("xxx", "cannot be the name of a folder"), data="x" * 300),
    Layout("the home of nobody", _nothing, ("cannot be the name of a folder",), data="~nobody_here/a"),
    Layout("a stream", _nothing, ("'wds/x' is a stream", "use a folder"), data="wds/x"),
    Layout("torchvision's, unknown", _nothing, ("unknown torchvision data set 'mnst'",), data="torch/mnst"),
    Layout("torchvision's, without its folder", _nothing, ("torch/mnist", "--data.root DIR"), data="torch/mnist"),
    Layout("a folder as Hugging Face's", _nothing, ("holds no parquet files", "without hfds/"), data="hfds/{folder}"),
    Layout("CIFAR-10 elsewhere", _nothing, ("CIFAR-10",), data="cifar10", options={"root": "{folder}"}),
    Layout("an image", _nothing, ("0.png is a file", "give a folder"), data="{folder}/" + FIRST),
    Layout(
        "no such split", _nothing, ("unknown split of data set", "'test'", "Known: train, validation"), split="test"
    ),
    Layout("an empty folder", _make("new"), ("new is empty", "put the images of each class"), **NEW),
    Layout("one class", _nothing, ("holds images but no class folders",), data="{folder}/train/a"),
    Layout("texts alone", _write("new/a.txt"), ("holds no class folders", "new/CLASS"), **NEW),
    Layout("an empty class", _make("train/c"), ("hold no images", "c")),
    Layout("a class of another format", _write("train/c/0.tif"), ("hold no images", "c (", "1 .tif")),
    Layout("an image beside the classes", _write("train/0.png"), ASIDE),
    Layout("an image too deep", _write("train/a/b/0.png"), ASIDE),
    Layout(
        "splits of images", _all(_remove("train", "val"), _write("train/0.png"), _write("val/0.png")), ("SPLIT/CLASS",)
    ),
    Layout("two training splits", _make("Training/a"), ("more than one train split", "keep one of Training, train")),
    Layout("a class more", _write("val/c/0.png"), ("val has 3 classes", "Unknown: c"), split="validation"),
    Layout("a class less", _remove("val/b"), ("val has 1 classes", "Missing: b"), split="validation"),
    Layout("a class in capitals", _move("val/b", "val/B"), ("Missing: b", "Unknown: B"), split="validation"),
    Layout("too few to hold a tenth out", _remove("val"), ("6 training images", "too few to hold every 10th out")),
    Layout(
        "a class of one image",
        _write("new/c/0.png"),
        ("class 'c'", "1 images", "at least two images"),
        data="{folder}/new",
        options={"hold_out": 0.1},
    ),
    Layout("more images than there are", _nothing, ("train_images is 7", "there are 3"), options={"train_images": 7}),
    Layout("an empty image", _write(FIRST, b""), ("0.png is empty (0 bytes)", "replace or remove")),
    Layout("no image", _write(FIRST, b"hello" * 99), ("0.png is not an image that can be read",)),
    Layout("a damaged image", _write(FIRST, picture("RGB", "BMP")[:99]), ("0.png is damaged or truncated",)),
    Layout("a huge image", _write(FIRST, png_of_declared_size(10_000, 9_000)), ("0.png is refused", "Scale it down")),
    Layout("an enormous image", _write(FIRST, png_of_declared_size(2**31 - 1, 2**31 - 1)), ("0.png is refused",)),
    Layout("a narrow image", _write(FIRST, picture("L", "PNG", (303, 3))), ("0.png is refused", "100 to 1", "Crop it")),
    Layout("an image of 16 bits", _write(FIRST, picture("I;16")), ("0.png has more than 8 bits", "save it with 8")),
    Layout(
        "an image of 32 bits", _write(FIRST, picture("F", "TIFF")), ("0.png has more than 8 bits", "save it with 8")
    ),
    Layout("no tar file", _write("set.tar", b"hello" * 999), ("set.tar cannot be read as an uncompressed tar",), **TAR),
    Layout("an empty tar file", _write("set.tar", b""), ("set.tar cannot be read as an uncompressed tar",), **TAR),
    Layout("a tar file without members", _pack(), ("set.tar is empty",), **TAR),
    Layout("a compressed tar file", _pack("a", mode="w:gz"), ("set.tar cannot be read as an uncompressed",), **TAR),
    Layout("a tar file cut off", _cut, ("set.tar",), **TAR),
    Layout("a tar file without classes", _pack(extra=_member("0.png", picture())), ("no class folders",), **TAR),
    Layout("a member above", _pack("a", extra=_member("../b/0.png", picture())), ("outside of the archive",), **TAR),
    Layout(
        "a tar file's link out",
        _pack("a", extra=_member("a/x.png", link="/etc/passwd", kind=tarfile.SYMTYPE)),
        ("link a/x.png", "leads to /etc/passwd, which is not in the archive"),
        **TAR,
    ),
    Layout(
        "a tar file's link to itself",
        _pack("a", extra=_member("a/x.png", link="x.png", kind=tarfile.SYMTYPE)),
        ("link a/x.png", "leads to itself"),
        **TAR,
    ),
    Layout("no image in a tar file", _pack("a", extra=_member("a/x.png", b"hello")), ("a/x.png in", "no known"), **TAR),
]


def make_class_folder(random: Random) -> Case:
    """A folder or a tar file of labeled images with one mistake, or none."""
    layout = random.choice(SOUND if random.random() < 0.25 else WRONG)
    return Case(layout.text, lambda folder: read_layout(folder, layout), layout.expected, layout.noted)


def read_layout(folder: Path, layout: Layout) -> None:
    """Write and change a folder, and read all images of a split."""
    write_classes(folder)
    layout.change(folder)
    options = dict(layout.options)
    if "root" in options:
        options["root"] = folder
    data = layout.data.replace("{folder}", str(folder))
    source = load_source(data, layout.split, **options)
    survey([source], data)
    for index in range(len(source)):
        source[index]
