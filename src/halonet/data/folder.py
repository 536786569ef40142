"""Images in class folders, or in a tar file of class folders, read with timm's readers and checked."""

import os
from collections.abc import Collection
from io import BytesIO
from pathlib import Path

from PIL import Image
from timm.data.readers.reader_image_folder import ReaderImageFolder
from timm.data.readers.reader_image_in_tar import ReaderImageInTar
from timm.utils.misc import natural_key

from halonet.data.images import IMAGE_SUFFIXES, decode_image, is_image_file, open_image
from halonet.errors import UserError


class ImageFolder:
    """A folder that holds one folder of images for each class.

    Labels follow the natural order of the folders' names, in which "2" stands before "10".

    Args:
        folder: The folder.

    Raises:
        UserError: The folder is empty or without class folders, a class folder holds no image, or an image lies
            elsewhere than directly in a visible class folder.
    """

    def __init__(self, folder: Path) -> None:
        names = class_folders(folder)
        if not names:
            raise UserError(_without_classes(folder))
        try:
            reader = ReaderImageFolder(str(folder), input_key=";".join(IMAGE_SUFFIXES))
        except RuntimeError as error:  # timm found no image at all
            raise UserError(_empty_classes(folder, names)) from error
        self.class_names, new_label = _order_classes(reader.class_to_idx)
        self._samples = sorted((new_label[label], path) for path, label in reader.samples)
        depth = str(folder).count(os.sep) + 2  # timm takes the innermost folder for the class, however deep
        for label, path in self._samples:
            if path.count(os.sep) != depth or self.class_names[label].startswith("."):
                raise UserError(f"image {path} does not lie directly in a class folder {folder}/CLASS: move it there")
        if empty := [name for name in names if name not in set(self.class_names)]:
            raise UserError(_empty_classes(folder, empty))
        self.labels = [label for label, _ in self._samples]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return an image and its label; raises UserError, naming the file, where it cannot be read."""
        label, path = self._samples[index]
        return open_image(path), label


class ImageTar:
    """A tar file that holds one folder of images (.jpeg, .jpg, .png), or one tar file of images, for each class.

    The archive is scanned once; images are then read from their place in it, so workers share nothing.

    Args:
        path: The tar file, uncompressed.

    Raises:
        UserError: The file is missing, damaged or compressed, or holds no class folders with images.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(f"tar file {path} does not exist")
        try:
            reader = ReaderImageInTar(str(path), cache_tarinfo=False)  # the cache would be a pickle
        except Exception as error:  # without images timm fails to unpack its own list; damage raises tar errors
            raise UserError(
                f"{path} cannot be read as an uncompressed tar file of class folders with images: {error}"
            ) from error
        self.class_names, new_label = _order_classes(reader.class_name_to_idx or {})
        if "" in self.class_names:
            raise UserError(f"{path} holds images outside of class folders: pack them as CLASS/IMAGE")
        self._path = path
        self._samples = []
        for (member, _, inner), label in zip(reader.samples, reader.targets, strict=True):
            start = member.offset_data + (inner.offset_data if inner else 0)
            self._samples.append((new_label[label], member.path, start, member.size))
        self._samples.sort()
        self.labels = [label for label, *_ in self._samples]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return an image and its label; raises UserError, naming the member, where it cannot be read."""
        label, name, start, size = self._samples[index]
        with self._path.open("rb") as file:
            file.seek(start)
            return decode_image(BytesIO(file.read(size)), f"{name} in {self._path}"), label


def class_folders(folder: Path) -> list[str]:
    """Names of the visible folders in a folder, in natural order."""
    names = [entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    return sorted(names, key=_natural_order)


def check_same_classes(found: Collection[str], where: str, expected: Collection[str], reference: str) -> None:
    """Require that two splits have the same classes, as labels count them.

    Args:
        found: Class names of one split.
        where: Its place, for the message.
        expected: Class names of the split that counts.
        reference: Its place.

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


def _order_classes(class_to_index: dict[str, int]) -> tuple[list[str], dict[int, int]]:
    names = sorted(class_to_index, key=_natural_order)
    return names, {class_to_index[name]: label for label, name in enumerate(names)}


def _natural_order(name: str) -> tuple[list, str]:
    return natural_key(name), name  # the name decides between "1" and "01", "Cat" and "cat"


def _without_classes(folder: Path) -> str:
    if any(is_image_file(entry) for entry in folder.iterdir()):
        return f"{folder} holds images but no class folders: put the images of each class into {folder}/CLASS"
    if any(folder.iterdir()):
        return f"{folder} holds no class folders: put the images of each class into {folder}/CLASS"
    return f"data folder {folder} is empty: put the images of each class into {folder}/CLASS"


def _empty_classes(folder: Path, names: list[str]) -> str:
    return f"class folders of {folder} hold no images ({', '.join(IMAGE_SUFFIXES)}): {_some(names)}"


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
