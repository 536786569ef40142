"""Randomness that depends on a key alone: seeds derived from numbers, and library code run apart from global state."""

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*key: int) -> int:
    """Hash integers to a seed of 63 bits, the same on every machine and in every version.

    Args:
        key: What the seed belongs to, e.g. (seed, epoch, index); their order matters.

    Returns:
        A number in [0, 2^63).
    """
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def derive_order(seed: int, name: str) -> bytes:
    """Hash a name to a key for sorting, the same on every machine and in every version.

    Args:
        seed: Another seed gives another order.
        name: Any text, such as a file's name.
    """
    return hashlib.blake2b(f"{seed}/{name}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


@contextmanager
def isolated_random_state() -> Iterator[Callable[[int], None]]:
    """Let code that draws from the global generators run without reading or moving them.

    timm's and torchvision's augmentations draw from the global generators of Python, NumPy and PyTorch (CPU). On entry
    the three states are put aside, on exit they are put back. The states belong to the process: two threads must not
    be inside at once. Accelerators' generators are left alone.

    Yields:
        A function that seeds the three generators; call it before each piece of work.
    """
    python_state = random.getstate()
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 - the global state is the point
    torch_state = torch.get_rng_state()
    try:
        yield _seed_global_generators
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(torch_state)


def _seed_global_generators(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the accelerators too
