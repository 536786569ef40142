"""Small images and folders of them, made for the tests of the data package."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def noise_image(seed: int, size: tuple[int, int] = (12, 9), mode: str = "RGB") -> Image.Image:
    """An image of `size` (width, height) that no other seed has."""
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def write_classes(folder: Path, counts: dict[str, int], suffix: str = ".png") -> Path:
    """Write so many images of each class into `folder`; the seed of each is its place in this order."""
    seed = 0
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            noise_image(seed).save(folder / name / f"{number}{suffix}")
            seed += 1
    return folder


def png_of_declared_size(width: int, height: int) -> bytes:
    """A few bytes that claim to be a PNG of this size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
