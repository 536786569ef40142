"""The ruler for precision: halo attention as plain PyTorch would compute it eagerly, in the inputs' own dtype.

Every query is compared with every pixel and the window is cut out by a mask: nothing is clever, so its rounding is what
an honest user of PyTorch would get.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.ops.attention.oracle import pair
from tests.ops.attention.sizes import Inputs, Size


def axis(
    length: int,
    block: int,
    halo: int,
    stride: int,
    border: str,
    centered: bool,
    offset_stride: int | None,
) -> tuple[Tensor, Tensor]:
    """For one axis: which keys each query sees, and which table entry each pair reads, both [queries, keys]."""
    standing = torch.arange(0, length, stride)[:, None]
    top = standing // block * block
    pixel = torch.arange(-halo, -(-length // block) * block + halo) if border == "zeros" else torch.arange(length)
    seen = (pixel >= top - halo) & (pixel < top + block + halo)
    if centered:
        seen &= (pixel - standing).abs() <= halo
    counted = standing if offset_stride in (None, stride) else top + (standing - top) // stride * offset_stride
    return seen, (pixel - counted + block + halo - 1).clamp(0, 2 * (block + halo) - 2)


def eager_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    row_embedding: Tensor | None = None,
    column_embedding: Tensor | None = None,
    *,
    block_size: int | tuple[int, int],
    halo_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    scale: float | None = None,
    border: str = "mask",
    centered: bool = False,
    offset_stride: int | tuple[int, int] | None = None,
) -> Tensor:
    height, width, d_qk = *key.shape[1:3], key.shape[-1]
    blocks, halos, strides = pair(block_size), pair(halo_size), pair(stride)
    offset_strides = (None, None) if offset_stride is None else pair(offset_stride)
    axes = [
        axis(length, block, halo, step, border, centered, offset_step)
        for length, block, halo, step, offset_step in zip(
            (height, width), blocks, halos, strides, offset_strides, strict=True
        )
    ]
    (rows_seen, row_entry), (columns_seen, column_entry) = axes
    if border == "zeros":
        bottom = rows_seen.shape[1] - height - halos[0]
        right = columns_seen.shape[1] - width - halos[1]
        key, value = (F.pad(x, (0, 0, 0, 0, halos[1], right, halos[0], bottom)) for x in (key, value))

    logits = torch.einsum("bijnd,bklnd->bnijkl", query, key)
    if row_embedding is not None and column_embedding is not None:
        row_width = d_qk if row_embedding.shape[1] + column_embedding.shape[1] > d_qk else row_embedding.shape[1]
        column_start = 0 if row_width == d_qk == column_embedding.shape[1] else row_width
        by_row = row_embedding.to(query.dtype)[row_entry]
        by_column = column_embedding.to(query.dtype)[column_entry]
        row_logits = torch.einsum("bijnd,ikd->bnijk", query[..., :row_width], by_row)
        column_logits = torch.einsum("bijnd,jld->bnijl", query[..., column_start:], by_column)
        logits = logits + row_logits[..., None] + column_logits[..., None, :]
    logits = logits * (d_qk**-0.5 if scale is None else scale)
    seen = rows_seen[:, None, :, None] & columns_seen[None, :, None, :]
    logits = logits.masked_fill(~seen, -torch.inf).flatten(-2)
    weights = logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32)).to(query.dtype)
    return torch.einsum("bnijkl,bklnd->bijnd", weights.unflatten(-1, seen.shape[2:]), value)


def root_mean_square(tensor: Tensor) -> float:
    return tensor.double().square().mean().sqrt().item()


def assert_no_worse_than_eager(actual: Tensor, eager: Tensor, exact: Tensor, what: str, terms: int = 1) -> None:
    """At most twice the eager error, plus half a unit in the last place for rounding the result itself.

    A table's gradient is a sum of so many terms, whose order differs from processor to processor, for eager PyTorch
    too: its luck must not decide, so every doubling of their number allows as much again.
    """
    assert actual.dtype == eager.dtype
    rounding = torch.finfo(actual.dtype).eps / 2 * root_mean_square(exact) * (1 + math.log2(terms))
    error, allowed = root_mean_square(actual - exact), 2 * root_mean_square(eager - exact) + rounding
    assert error <= allowed, f"{what}: error {error:.3g}, allowed {allowed:.3g}"


def with_gradients(
    attend: Callable[..., Tensor], inputs: Inputs, size: Size, gradient_dtype: torch.dtype
) -> list[Tensor]:
    """The output and every gradient, the output's gradient being rounded to a dtype that may be lower than theirs."""
    inputs = inputs.requiring_grad()
    output = attend(*inputs, **size.options)
    gradient = size.output_gradient(gradient_dtype).to(output.dtype)
    return [output, *torch.autograd.grad(output, inputs.tensors(), gradient)]
