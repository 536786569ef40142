"""Blocks in sequence, with activation checkpointing."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


class Stage(nn.Sequential):
    """Blocks in sequence.

    Attributes:
        grad_checkpointing: Whether training keeps only the inputs of the blocks and recomputes the rest in the backward
            pass. Running statistics of batch norms are still updated once.
    """

    grad_checkpointing = False

    def forward(
        self, input: Float[Tensor, "batch in_channels in_rows in_columns"]
    ) -> Float[Tensor, "batch channels rows columns"]:
        """Run the blocks in order."""
        for block in self:
            input = _checkpoint(block, input) if self.grad_checkpointing and self.training else block(input)
        return input


def _checkpoint(block: nn.Module, x: Tensor) -> Tensor:
    if torch.compiler.is_compiling():  # the compiler recomputes no side effects, and rejects contexts
        return checkpoint(block, x, use_reentrant=False)
    return checkpoint(
        block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _keep_running_statistics(block))
    )


@contextmanager
def _keep_running_statistics(block: nn.Module) -> Iterator[None]:
    """Restore the running statistics of batch norms on exit."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    before = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers(recurse=False)]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
