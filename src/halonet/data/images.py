"""Opening image files safely: what can be read, how large it may be, and where the images of a request lie."""

import contextlib
import io
import warnings
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageOps

from halonet.errors import UserError

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
PIXEL_LIMIT = 89_478_485  # Pillow's own threshold of suspicion: 256 MiB as 24-bit pixels
ASPECT_LIMIT = 100  # beyond it, scaling the shorter side to a network's input makes a huge image of a small one


def open_image(path: str | Path) -> Image.Image:
    """Read an image file.

    Args:
        path: The file.

    Returns:
        The decoded image, turned as its EXIF orientation says: mode "L" where the file is gray, else "RGB" (an alpha
        channel is dropped).

    Raises:
        UserError: The file is missing, is not an image, is damaged or truncated, has more than `PIXEL_LIMIT` pixels,
            is over `ASPECT_LIMIT` times as long as it is wide, or has more than 8 bits a channel.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"image file {path} does not exist" if not path.exists() else f"{path} is not an image file")
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"cannot open image {path}: {error.strerror}") from error
    with file:
        return decode_image(file, str(path))


def decode_image(file: io.BufferedReader | io.BytesIO, name: str) -> Image.Image:
    """Decode an open image file as `open_image` does; `name` stands for it in messages."""
    # Pillow's decoders meet arbitrary bytes and raise arbitrary exceptions: SyntaxError, struct.error, IndexError ...
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(file)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UserError(f"image {name} is refused: {error} Scale it down first.") from error
    except Image.UnidentifiedImageError as error:
        raise UserError(f"{name} is not an image that can be read: no known format fits its bytes") from error
    except Exception as error:
        raise _damaged(name, error) from error
    num_pixels = image.width * image.height
    if num_pixels > PIXEL_LIMIT:  # Pillow lets it pass where its own limit was raised
        raise UserError(
            f"image {name} is refused: it has {num_pixels:,} pixels, the limit is {PIXEL_LIMIT:,}. Scale it down first."
        )
    if max(image.size) > ASPECT_LIMIT * min(image.size):
        shape = f"{image.width} x {image.height} pixels"
        raise UserError(f"image {name} is refused: {shape} is over {ASPECT_LIMIT} to 1. Crop it first.")
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise UserError(f"image {name} has more than 8 bits a channel (mode {image.mode}): save it with 8 bits first")
    try:
        image.load()
        _turn_upright(image)
        return _as_gray_or_color(image)
    except Exception as error:
        raise _damaged(name, error) from error


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """List the image files that a request names.

    Args:
        paths: Files, taken as they are, and folders, searched with their subfolders for names ending in
            `IMAGE_SUFFIXES`.

    Returns:
        The files in the order of the request, those of one folder sorted by path, each once.

    Raises:
        UserError: A path does not exist, a folder holds no images, or `paths` is empty.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            members = sorted(file for file in path.rglob("*") if is_image_file(file))
            if not members:
                raise UserError(f"folder {path} holds no images ({', '.join(IMAGE_SUFFIXES)})")
            found |= dict.fromkeys(members)
        elif path.exists():
            found[path] = None
        else:
            raise UserError(f"image file or folder {path} does not exist")
    if not found:
        raise UserError("no images were named: give image files, or folders that hold some")
    return list(found)


def is_image_file(path: Path) -> bool:
    """Whether a path is a file, not hidden, whose name ends as an image's does."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _turn_upright(image: Image.Image) -> None:
    # Metadata that cannot be parsed says nothing about the orientation, and the pixels are sound.
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        ImageOps.exif_transpose(image, in_place=True)


def _as_gray_or_color(image: Image.Image) -> Image.Image:
    if image.mode in ("1", "L", "LA", "La"):
        return image.convert("L")
    if image.mode == "P" and "transparency" in image.info:  # straight to RGB, Pillow warns and guesses
        image = image.convert("RGBA")
    return image.convert("RGB")


def _damaged(name: str, error: Exception) -> UserError:
    return UserError(f"image {name} is damaged or truncated ({error}): replace or remove it")
