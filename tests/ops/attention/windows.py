"""Which queries see which pixels."""

import torch
from torch import Tensor

from tests.ops.attention.oracle import pair
from tests.ops.attention.sizes import Size


def sees(size: Size, centered: bool = False) -> Tensor:
    """[query rows, query columns, rows, columns]: whether the window of the query, or of its block, holds the pixel."""
    axes = []
    for length, queries, block, halo, stride in zip(
        size.image, size.query_grid, pair(size.block), pair(size.halo), pair(size.stride), strict=True
    ):
        top = torch.arange(queries)[:, None] * stride // block * block
        pixel = torch.arange(length)
        if centered:
            axes.append((pixel - torch.arange(queries)[:, None] * stride).abs() <= halo)
        else:
            axes.append((pixel >= top - halo) & (pixel < top + block + halo))
    return axes[0][:, None, :, None] & axes[1][None, :, None, :]
