"""The same numbers in other memory layouts."""

import torch
from torch import Tensor


def channels_first(tensor: Tensor) -> Tensor:
    """The same numbers laid out [batch, heads, d, rows, columns], as a permuted convolution output is."""
    order = (0, 3, 4, 1, 2) if tensor.dim() == 5 else (1, 0)  # its own inverse
    return tensor.permute(order).contiguous().permute(order)


def every_other_channel(tensor: Tensor) -> Tensor:
    """The same numbers as a slice of a tensor twice as wide, the gaps filled with NaN."""
    wide = torch.full((*tensor.shape, 2), torch.nan, dtype=tensor.dtype)
    wide[..., 0] = tensor
    return wide[..., 0]


def part_of_a_larger_image(tensor: Tensor) -> Tensor:
    """The same numbers as the inside of a larger tensor, surrounded by NaN: a read too far shows."""
    larger = torch.full([size + 2 for size in tensor.shape], torch.nan, dtype=tensor.dtype)
    inside = tuple(slice(1, -1) for _ in tensor.shape)
    larger[inside] = tensor
    return larger[inside]
