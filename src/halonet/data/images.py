"""Finding image files and opening them safely, whatever their size and content."""

import contextlib
import functools
import io
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageOps

from halonet.data.walk import IMAGE_SUFFIXES, LeftOut, count_other_picture, describe_left_out, is_image_name, walk
from halonet.errors import UserError, note_once

PIXEL_LIMIT = 89_478_485  # Pillow's own limit for decompression bombs: 256 MiB of 24-bit pixels
# Pillow would give an EPS file, whatever its name, to another program, Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "TGA", "ICO", "JPEG2000", "AVIF", "MPO")
GRAY_MODES = ("1", "L", "LA", "La")
ASPECT_LIMIT = 100  # beyond it, scaling the shorter side to a network's input would make a huge image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_LIMIT = 2**30  # bytes of a file that is read into memory to remove its texts
# Metadata chunks: Pillow refuses the file if one of them unpacks to more than 1 MiB.
PNG_TEXTS = (b"iCCP", b"iTXt", b"tEXt", b"zTXt")

ImageFile = io.BufferedReader | io.BytesIO


class Header(NamedTuple):
    """What an image file states before its pixels: width and height as stored, and whether it is in color."""

    size: tuple[int, int]
    in_color: bool


def open_image(path: str | Path, shorter_side: int | None = None) -> Image.Image:
    """Read an image file.

    Args:
        path: The file.
        shorter_side: Scale larger images down to this, in pixels, which also decodes large JPEG files faster.

    Returns:
        The image in its EXIF orientation: mode "L" if the file is gray, else "RGB" (an alpha channel is dropped).

    Raises:
        UserError: The file is missing, not an image, damaged or truncated, has more than `PIXEL_LIMIT` pixels, more
            than 8 bits per channel, or sides whose ratio exceeds `ASPECT_LIMIT`.
    """
    with _open(Path(path)) as file:
        return decode_image(file, str(path), shorter_side)


def inspect_image(path: str | Path) -> Header:
    """Read an image file's header, which is fast.

    Raises:
        UserError: As `open_image`, except that damaged pixels go unnoticed.
    """
    with _open(Path(path)) as file:
        return decode_header(file, str(path))


def decode_image(file: ImageFile, name: str, shorter_side: int | None = None) -> Image.Image:
    """Decode an open image file as `open_image` does; messages call it `name`."""
    try:
        return _decode(file, name, shorter_side)
    except UserError:
        pixels = _png_without_texts(file)
        if pixels is None:
            raise
        with contextlib.suppress(UserError):
            return _decode(pixels, name, shorter_side)
        raise


def decode_header(file: ImageFile, name: str) -> Header:
    """Read the header of an open image file as `inspect_image` does; messages call it `name`."""
    try:
        image = _identify(file, name)
    except UserError:
        pixels = _png_without_texts(file)
        if pixels is None:
            raise
        image = _identify(pixels, name)
    return Header(image.size, image.mode not in GRAY_MODES)


def _open(path: Path) -> io.BufferedReader:
    if not os.path.isfile(path):  # pathlib's raises for invalid names
        is_there = os.path.exists(path)
        raise UserError(f"{path} is not an image file" if is_there else f"image file {path} does not exist")
    try:
        return path.open("rb")
    except OSError as error:
        raise UserError(f"cannot open image {path}: {error.strerror}") from error


def _decode(file: ImageFile, name: str, shorter_side: int | None) -> Image.Image:
    image = _identify(file, name)
    try:
        if shorter_side is not None:
            image.draft(None, _scaled_down(image.size, shorter_side))
        image.load()
        _turn_upright(image)
        image = _as_gray_or_color(image)
        size = image.size if shorter_side is None else _scaled_down(image.size, shorter_side)
        return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)
    except Exception as error:
        raise _damaged(name, error) from error


def _identify(file: ImageFile, name: str) -> Image.Image:
    """Read the header, and refuse images that are too large, too long or too deep."""
    # Given arbitrary bytes, Pillow's decoders raise arbitrary exceptions: SyntaxError, struct.error, IndexError ...
    file.seek(0)
    if not file.read(1):
        raise UserError(f"image {name} is empty (0 bytes): replace or remove it")
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(file, formats=_readable())
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UserError(f"image {name} is refused: {error} Scale it down first.") from error
    except Image.UnidentifiedImageError as error:
        raise UserError(f"{name} is not an image that can be read: no known format fits its bytes") from error
    except Exception as error:
        raise _damaged(name, error) from error
    num_pixels = image.width * image.height
    if num_pixels > PIXEL_LIMIT:  # Pillow accepts it if its own limit was raised
        raise UserError(
            f"image {name} is refused: it has {num_pixels:,} pixels, the limit is {PIXEL_LIMIT:,}. Scale it down first."
        )
    if max(image.size) > ASPECT_LIMIT * min(image.size):
        shape = f"{image.width} x {image.height} pixels"
        raise UserError(f"image {name} is refused: {shape} is over {ASPECT_LIMIT} to 1. Crop it first.")
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise UserError(f"image {name} has more than 8 bits a channel (mode {image.mode}): save it with 8 bits first")
    return image


@functools.cache
def _readable() -> tuple[str, ...]:
    """List the formats that are read; which of them Pillow knows depends on how it was built."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """List image files without duplicates, in the order of `paths`, those of one folder sorted by path.

    Args:
        paths: Files, and folders, which are searched recursively for `IMAGE_SUFFIXES`. Hidden and system files are
            skipped, and links to folders followed once; a `UserNote` counts what was left out.

    Raises:
        UserError: A path does not exist, a folder contains no images or cannot be read, or `paths` is empty.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        try:
            if path.is_dir():
                found |= dict.fromkeys(_images_below(path))
            elif path.exists():
                found[path] = None
            else:
                raise UserError(f"image file or folder {path} does not exist")
        except (OSError, ValueError) as error:  # the name is too long, or contains NUL
            if isinstance(error, UserError):
                raise
            raise UserError(f"{str(path)[:200]!r} cannot be the name of an image: {error}") from error
    if not found:
        raise UserError("no images were named: give image files, or folders that hold some")
    return list(found)


def _images_below(folder: Path) -> list[Path]:
    left_out, images = LeftOut(), []
    for entry in walk(folder, left_out):
        if entry.is_folder:
            continue
        if is_image_name(entry.path):
            images.append(Path(entry.path))
        else:
            count_other_picture(entry.path, left_out)
    noted = describe_left_out(left_out)
    if not images:
        raise UserError(f"folder {folder} holds no images ({', '.join(IMAGE_SUFFIXES)}){noted and f'; it has {noted}'}")
    if noted:
        note_once(f"{folder}: left out {noted}")
    return sorted(images)


def _scaled_down(size: tuple[int, int], shorter_side: int) -> tuple[int, int]:
    """Width and height after scaling the shorter side down to `shorter_side`; smaller images keep their size."""
    if min(size) <= shorter_side:
        return size
    width, height = (-(-side * shorter_side // min(size)) for side in size)
    return width, height


def _png_without_texts(file: ImageFile) -> io.BytesIO | None:
    """Remove texts and color profile from a PNG file; None if it has none, or for other files."""
    file.seek(0)
    if file.read(len(PNG_SIGNATURE)) != PNG_SIGNATURE or file.seek(0, os.SEEK_END) > PNG_LIMIT:
        return None
    file.seek(len(PNG_SIGNATURE))
    kept, left_out = [PNG_SIGNATURE], 0
    while len(start := file.read(8)) == 8:
        content = file.read(int.from_bytes(start[:4], "big") + 4)
        if start[4:] in PNG_TEXTS:
            left_out += 1
        else:
            kept += [start, content]
    return io.BytesIO(b"".join(kept)) if left_out else None


def _turn_upright(image: Image.Image) -> None:
    # Unreadable metadata gives no orientation, but the pixels are intact.
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        ImageOps.exif_transpose(image, in_place=True)


def _as_gray_or_color(image: Image.Image) -> Image.Image:
    if image.mode in GRAY_MODES:
        return image.convert("L")
    if image.mode == "P" and "transparency" in image.info:  # converted to RGB directly, Pillow warns and guesses
        image = image.convert("RGBA")
    return image.convert("RGB")


def _damaged(name: str, error: Exception) -> UserError:
    return UserError(f"image {name} is damaged or truncated ({error}): replace or remove it")
