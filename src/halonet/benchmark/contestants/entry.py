"""What a contestant is, and what it is given."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from halonet.benchmark.settings import Settings
from halonet.benchmark.sizes import Size

# Largest error of a contestant that computes the same, relative to the norm of what it should be.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}


@dataclass(frozen=True)
class Inputs:
    """Random numbers of one size.

    Attributes:
        size: The size.
        query: [batch, query_rows, query_columns, heads, d_qk], as all that follow a leaf that takes gradients.
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
class Entry:
    """A contestant, ready to run.

    Attributes:
        run: Computes the output, in the contestant's own layout.
        leaves: What takes gradients.
        compare: Computes what the contestant gives and what it should give, in one layout.
    """

    run: Callable[[], Tensor]
    leaves: list[Tensor]
    compare: Callable[[], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Contestant:
    """A way to compute halo attention.

    Attributes:
        refusal: Says why it cannot take a size and a pass (training or not), or None if it can.
        prepare: Makes it ready on given numbers.
        compiles: Whether it is compiled at its first run; its memory is then not measured, for the compiler's own
            would be part of it.
        computes: Turns the size it is given into the size it really works at.
    """

    refusal: Callable[[Size, Settings, bool], str | None]
    prepare: Callable[[Inputs], Entry]
    compiles: bool = False
    computes: Callable[[Size], Size] = lambda size: size


class Given(nn.Module):
    """Stands in for a projection, so that a layer is the bare operator."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.tensor = tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return the tensor, whatever is projected."""
        return self.tensor


def make_inputs(size: Size, settings: Settings) -> Inputs:
    """Draw the numbers of a size on its device, always the same ones."""
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
    """Say how far a result is from what it should be, or None if it is near enough.

    Args:
        actual: The result.
        expected: What it should be.
        tolerance: Largest error relative to the norm of what it should be; None takes that of the dtype.
    """
    if actual.shape != expected.shape:
        return f"it gives shape {list(actual.shape)}, not {list(expected.shape)}"
    error = relative_error(actual, expected)
    # Written so that a result that is not a number does not pass.
    near = error <= (TOLERANCES[expected.dtype] if tolerance is None else tolerance)
    return None if near else f"it computes something else: relative error {error:.1e}"


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Distance of a result from what it should be, over the norm of what it should be."""
    wrong, right = actual.detach().double(), expected.detach().double()
    return ((wrong - right).norm() / right.norm()).item()


def channels_first(tensor: Tensor) -> Tensor:
    """Copy [batch, rows, columns, heads, channels] to [batch, heads * channels, rows, columns], as a new leaf."""
    return tensor.detach().flatten(3).permute(0, 3, 1, 2).contiguous().requires_grad_()


def channels_last(tensor: Tensor, heads: int) -> Tensor:
    """The inverse of `channels_first`, as a view."""
    return tensor.permute(0, 2, 3, 1).unflatten(-1, (heads, -1))
