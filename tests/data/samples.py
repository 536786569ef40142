"""Small images and folders of them, and the global random state."""

import random
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image


def noise_image(seed: int, size: tuple[int, int] = (12, 9), mode: str = "RGB") -> Image.Image:
    """A random image of `size` (width, height)."""
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def write_classes(folder: Path, counts: dict[str, int], suffix: str = ".png") -> Path:
    """Write `counts` images per class into `folder`, with the seeds 0, 1, 2 ..."""
    seed = 0
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            noise_image(seed).save(folder / name / f"{number}{suffix}")
            seed += 1
    return folder


def png_of_declared_size(width: int, height: int) -> bytes:
    """A few bytes whose header claims to be a PNG of this size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def global_states() -> tuple:
    """The states of the global generators of Python, NumPy and PyTorch."""
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002
