"""An implementation of halo attention, the inputs it is given, and whether its result agrees with ours."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from halonet.benchmark.settings import Settings
from halonet.benchmark.sizes import Size

# Largest error of an implementation that agrees, relative to the norm of the expected result.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}


@dataclass(frozen=True)
class Inputs:
    """Random tensors of one size, all of them leaves that require gradients.

    Attributes:
        query: [batch, query_rows, query_columns, heads, d_qk].
        key: [batch, rows, columns, heads, d_qk].
        value: [batch, rows, columns, heads, d_v].
        tables: Row and column table, split as in the paper: [2 * (b + h) - 1, about d_qk / 2].
    """

    size: Size
    query: Tensor
    key: Tensor
    value: Tensor
    tables: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Prepared:
    """An implementation, ready to run on given inputs.

    Attributes:
        run: Computes the output, in the implementation's own layout.
        leaves: Tensors that receive gradients.
        compare: Computes its output and the expected output, in one layout.
    """

    run: Callable[[], Tensor]
    leaves: list[Tensor]
    compare: Callable[[], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Implementation:
    """A way to compute halo attention.

    Attributes:
        unsupported_reason: Why it cannot run a size, with settings, in training or not; None if it can.
        prepare: Makes it ready to run on given inputs.
        compiles: Whether its first run compiles it; its memory is not measured, because the compiler's is part of it.
        computes: Maps the requested size to the size that it actually computes.
    """

    unsupported_reason: Callable[[Size, Settings, bool], str | None]
    prepare: Callable[[Inputs], Prepared]
    compiles: bool = False
    computes: Callable[[Size], Size] = lambda size: size


class FixedProjection(nn.Module):
    """Replaces a projection by its result, so that a layer is the bare operator."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.tensor = tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return the tensor, whatever the input is."""
        return self.tensor


def make_inputs(size: Size, settings: Settings) -> Inputs:
    """Draw the tensors of a size on the device of the settings, always the same ones."""
    generator = torch.Generator(settings.device).manual_seed(0)
    geometry = size.geometry

    def draw(*shape: int) -> Tensor:
        numbers = torch.randn(shape, generator=generator, device=settings.device)
        return numbers.to(settings.torch_dtype).requires_grad_()

    images = (settings.batch, size.rows, size.columns, size.heads)
    queries = (settings.batch, geometry.rows.num_queries, geometry.columns.num_queries, size.heads)
    row_width, column_width = size.table_widths
    return Inputs(
        size,
        query=draw(*queries, size.query_channels),
        key=draw(*images, size.query_channels),
        value=draw(*images, size.value_channels),
        tables=(draw(geometry.rows.table_length, row_width), draw(geometry.columns.table_length, column_width)),
    )


def disagreement(actual: Tensor, expected: Tensor, tolerance: float | None = None) -> str | None:
    """Describe how a result differs from the expected one, or return None if it agrees.

    The tolerance is the largest error relative to the norm of the expected result; None takes that of its dtype.
    """
    if actual.shape != expected.shape:
        return f"it gives shape {list(actual.shape)}, not {list(expected.shape)}"
    error = relative_error(actual, expected)
    # A NaN fails this comparison.
    agrees = error <= (TOLERANCES[expected.dtype] if tolerance is None else tolerance)
    return None if agrees else f"it computes something else: relative error {error:.1e}"


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of the expected result, in float64."""
    actual, expected = actual.detach().double(), expected.detach().double()
    return ((actual - expected).norm() / expected.norm()).item()


def channels_first(tensor: Tensor) -> Tensor:
    """Copy [batch, rows, columns, heads, channels] to [batch, heads * channels, rows, columns], as a new leaf."""
    return tensor.detach().flatten(3).permute(0, 3, 1, 2).contiguous().requires_grad_()


def channels_last(tensor: Tensor, heads: int) -> Tensor:
    """The inverse of `channels_first`, as a view."""
    return tensor.permute(0, 2, 3, 1).unflatten(-1, (heads, -1))
