"""Transforms of `torch.func` and tracing, which kernels and memory formats do not support."""

import torch
from torch import Tensor
from torch._C._functorch import TransformType, get_interpreter_stack
from torch.autograd import forward_ad

from halonet.ops.tracing import is_exporting


def is_transformed() -> bool:
    """Whether `torch.func.grad`, `vmap`, `jvp` or another transform is running."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def is_traced() -> bool:
    """Whether `torch.jit.trace` is running."""
    tracing: bool = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    return tracing


def needs_plain_operators() -> bool:
    """Whether a transform other than `torch.func.grad` alone is running: `vmap`, forward mode, nested ones."""
    if torch.compiler.is_compiling():
        return False
    if torch._C._are_functorch_transforms_active():
        return [transform.key() for transform in get_interpreter_stack()] != [TransformType.Grad]
    return forward_ad._current_level >= 0


def channels_last(image: Tensor) -> Tensor:
    """Bring a feature map into channels_last memory.

    Not while a transform is running, because `vmap` rejects memory formats, nor while exporting: other runtimes know
    nothing of them, and the question how a map lies in memory would bind the program to maps of several pixels.
    """
    return image if is_transformed() or is_exporting() else image.contiguous(memory_format=torch.channels_last)
