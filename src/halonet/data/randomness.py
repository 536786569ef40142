"""Reproducible randomness: seeds derived from keys, and library code isolated from the global random state."""

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*key: int) -> int:
    """Hash integers, such as (seed, epoch, index), to a seed in [0, 2^63), the same on every machine and version."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def derive_order(seed: int, name: str) -> bytes:
    """Hash a seed and a name to a sort key, the same on every machine and version."""
    return hashlib.blake2b(f"{seed}/{name}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


@contextmanager
def isolated_random_state() -> Iterator[Callable[[int], None]]:
    """Run code that draws from the global generators without changing their state.

    timm's and torchvision's augmentations draw from the global generators of Python, NumPy and PyTorch (CPU). Their
    states are saved on entry and restored on exit; accelerators' generators are not touched. The states belong to the
    process, so only one thread may be inside at a time.

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
