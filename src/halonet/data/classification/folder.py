"""Images in class folders, on disk or in a tar file, by the same rules."""

import os
from collections.abc import Collection
from io import BytesIO
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from PIL import Image
from timm.utils.misc import natural_key

from halonet.data.classification.tar import Member, read_members
from halonet.data.images import Header, decode_header, decode_image, inspect_image, open_image
from halonet.data.walk import (
    IMAGE_SUFFIXES,
    LeftOut,
    count_other_picture,
    describe_left_out,
    is_hidden,
    is_image_name,
    walk,
)
from halonet.errors import UserError, note_once

LocationT = TypeVar("LocationT")


class TarImage(NamedTuple):
    """An image in a tar file: label, CLASS/FILE, and where its bytes are."""

    label: int
    name: str
    start: int
    size: int


class ImageFolder:
    """A folder with one subfolder of images per class.

    Labels follow the natural order of the subfolders' names, in which "2" comes before "10". Hidden and system files
    are skipped, and links to folders are followed once; a `UserNote` counts what was left out.

    Raises:
        UserError: There are no class folders, a class folder has no images or cannot be read, or an image is not
            directly in a class folder.
    """

    def __init__(self, folder: Path) -> None:
        classes = _Classes[str](str(folder))
        for entry in walk(folder, classes.left_out):
            classes.add(entry.parts, entry.is_folder, entry.path)
        self.class_names, samples = classes.finish()
        # Sorted by path, as always: a resumed run must see the same order.
        self._samples = sorted((label, path) for label, _, path in samples)
        self.labels = [label for label, _ in self._samples]

    @property
    def names(self) -> list[str]:
        """The images as CLASS/FILE, independent of the folder's path."""
        return ["/".join(path.split(os.sep)[-2:]) for _, path in self._samples]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return an image and its label; raises UserError, naming the file, if it cannot be read."""
        return self.read(index)

    def read(self, index: int, shorter_side: int | None = None) -> tuple[Image.Image, int]:
        """Return an image, scaled down as `open_image` does, and its label."""
        label, path = self._samples[index]
        return open_image(path, shorter_side), label

    def inspect(self, index: int) -> Header:
        """Return an image's header; raises UserError as `inspect_image` does."""
        return inspect_image(self._samples[index][1])


class ImageTar:
    """An uncompressed tar file with one folder of images, or one tar file of images, per class.

    Rules, order and labels are those of `ImageFolder`; links within the archive count as their targets. The archive is
    scanned once; each read then opens the file by itself, so workers share nothing.

    Raises:
        UserError: The file is missing, damaged or compressed, has links that lead out of it, or breaks a rule of
            `ImageFolder`.
    """

    def __init__(self, path: Path) -> None:
        classes = _Classes[Member](str(path))
        for member in _without_common_folder(list(read_members(path, classes.left_out))):
            classes.add(member.parts, member.is_folder, member)
        self.class_names, samples = classes.finish()
        self._path = path
        self._samples = sorted(TarImage(label, name, member.start, member.size) for label, name, member in samples)
        self.labels = [image.label for image in self._samples]

    @property
    def names(self) -> list[str]:
        """The images as CLASS/FILE."""
        return [image.name for image in self._samples]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return an image and its label; raises UserError, naming the member, if it cannot be read."""
        return self.read(index)

    def read(self, index: int, shorter_side: int | None = None) -> tuple[Image.Image, int]:
        """Return an image, scaled down as `open_image` does, and its label."""
        return decode_image(self._content(index), self._describe(index), shorter_side), self.labels[index]

    def inspect(self, index: int) -> Header:
        """Return an image's header; raises UserError as `inspect_image` does."""
        return decode_header(self._content(index), self._describe(index))

    def _content(self, index: int) -> BytesIO:
        image = self._samples[index]
        with self._path.open("rb") as file:
            file.seek(image.start)
            return BytesIO(file.read(image.size))

    def _describe(self, index: int) -> str:
        return f"{self._samples[index].name} in {self._path}"


class _Classes(Generic[LocationT]):
    """Collects class folders and their images, and checks the rules that folders and tar files share."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.left_out = LeftOut()
        self._images: dict[str, list[tuple[str, LocationT]]] = {}
        self._others: dict[str, LeftOut] = {}
        self._stray: list[str] = []
        self._is_empty = True

    def add(self, parts: tuple[str, ...], is_folder: bool, location: LocationT) -> None:
        """Add a file or a folder; `parts` is its path from the top."""
        self._is_empty = False
        if is_folder:
            if len(parts) == 1:
                self._images.setdefault(parts[0], [])
        elif not is_image_name(parts[-1]):
            count_other_picture(parts[-1], self.left_out)
            count_other_picture(parts[-1], self._others.setdefault(parts[0], LeftOut()))
        elif len(parts) == 2:
            self._images.setdefault(parts[0], []).append(("/".join(parts), location))
        elif len(parts) == 1:
            self._stray.append(parts[0])
        else:
            raise UserError(
                f"{self._stray_image('/'.join(parts))}, or name {self.where}/{parts[0]} as the data "
                "if the class folders lie there"
            )

    def finish(self) -> tuple[list[str], list[tuple[int, str, LocationT]]]:
        """Check, note what was left out, and return class names and samples: label, CLASS/FILE, location."""
        if not self._images:
            raise UserError(self._without_classes())
        if self._stray:
            raise UserError(self._stray_image(self._stray[0]))
        empty = [self._describe_empty(name) for name, images in self._images.items() if not images]
        if empty:
            raise UserError(
                f"class folders of {self.where} hold no images ({', '.join(IMAGE_SUFFIXES)}): {_some(empty)}"
            )
        if noted := describe_left_out(self.left_out):
            note_once(f"{self.where}: left out {noted}")
        class_names = sorted(self._images, key=natural_order)
        samples = [(label, *image) for label, name in enumerate(class_names) for image in self._images[name]]
        return class_names, samples

    def _describe_empty(self, name: str) -> str:
        noted = describe_left_out(self._others.get(name, LeftOut()))
        return name + (noted and f" ({noted})")

    def _stray_image(self, name: str) -> str:
        return f"image {self.where}/{name} does not lie directly in a class folder {self.where}/CLASS: move it there"

    def _without_classes(self) -> str:
        remedy = f"put the images of each class into {self.where}/CLASS"
        if self._stray:
            return f"{self.where} holds images but no class folders: {remedy}"
        if not self._is_empty:
            return f"{self.where} holds no class folders: {remedy}"
        return f"{self.where} is empty: {remedy}"


def class_folders(folder: Path) -> list[str]:
    """Names of the class folders in a folder, in natural order, without opening them."""
    seen = {os.path.realpath(folder)}
    names = []
    for entry in sorted(folder.iterdir(), key=lambda entry: (entry.is_symlink(), entry.name)):
        if not is_hidden(entry.name) and entry.is_dir() and (real := os.path.realpath(entry)) not in seen:
            seen.add(real)
            names.append(entry.name)
    return sorted(names, key=natural_order)


def check_same_classes(found: Collection[str], where: str, expected: Collection[str], reference: str) -> None:
    """Require that a split has the same classes as a reference split.

    Args:
        found: The split's class names.
        where: Its name for messages.
        expected: The reference split's class names.
        reference: Its name for messages.

    Raises:
        UserError: They differ.
    """
    missing = [name for name in expected if name not in set(found)]
    extra = [name for name in found if name not in set(expected)]
    if missing or extra:
        difference = f" Missing: {_some(missing)}." if missing else ""
        difference += f" Unknown: {_some(extra)}." if extra else ""
        raise UserError(
            f"{where} has {len(found)} classes and {reference} has {len(expected)}: they must be the same.{difference}"
        )


def natural_order(name: str) -> tuple[list, str]:
    """Sort key for class names: "2" before "10"; the name itself orders "1" and "01", or "Cat" and "cat"."""
    return natural_key(name), name


def _without_common_folder(members: list[Member]) -> list[Member]:
    """Strip folders that contain all images: `tar cf set.tar set` packs CLASS/IMAGE as set/CLASS/IMAGE."""
    images = [member.parts for member in members if not member.is_folder and is_image_name(member.parts[-1])]
    depth = 0
    while images and all(len(parts) > depth + 2 and parts[depth] == images[0][depth] for parts in images):
        depth += 1
    return [member._replace(parts=member.parts[depth:]) for member in members if len(member.parts) > depth]


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
