"""The named problem sizes of the operator's tests: each says why it is here, and is small enough for brute force."""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from tests.ops.attention.oracle import pair


class Inputs(NamedTuple):
    """The five tensors in the operator's order; the tables are None where a size has none."""

    query: Tensor
    key: Tensor
    value: Tensor
    row_embedding: Tensor | None
    column_embedding: Tensor | None

    def tensors(self) -> list[Tensor]:
        return [tensor for tensor in self if tensor is not None]

    def names(self) -> list[str]:
        return [name for name, tensor in zip(self._fields, self, strict=True) if tensor is not None]

    def map(self, function: Callable[[Tensor], Tensor]) -> "Inputs":
        query, key, value, *tables = self
        row_embedding, column_embedding = (None if table is None else function(table) for table in tables)
        return Inputs(function(query), function(key), function(value), row_embedding, column_embedding)

    def requiring_grad(self) -> "Inputs":
        """Fresh leaves that want gradients."""
        return self.map(lambda tensor: tensor.detach().clone().requires_grad_())


@dataclass(frozen=True)
class Size:
    """One problem: the shapes, the options passed to the operator, and the reason it is worth testing."""

    name: str
    reason: str
    image: tuple[int, int]
    block: int | tuple[int, int]
    halo: int | tuple[int, int]
    stride: int | tuple[int, int] = 1
    batch: int = 1
    heads: int = 1
    d_qk: int = 4
    d_v: int = 3
    tables: Literal["split", "full", "none"] = "split"
    row_width: int | None = None
    scale: float | None = None
    border: str = "mask"
    centered: bool = False
    offset_stride: int | tuple[int, int] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The operator's keyword arguments; those left at their default are left out, so that defaults are tested."""
        options: dict[str, Any] = {"block_size": self.block, "halo_size": self.halo}
        if self.stride != 1:
            options["stride"] = self.stride
        if self.scale is not None:
            options["scale"] = self.scale
        if self.border != "mask":
            options["border"] = self.border
        if self.centered:
            options["centered"] = True
        if self.offset_stride is not None:
            options["offset_stride"] = self.offset_stride
        return options

    @property
    def query_grid(self) -> tuple[int, int]:
        strides = pair(self.stride)
        return math.ceil(self.image[0] / strides[0]), math.ceil(self.image[1] / strides[1])

    def table_shapes(self) -> list[tuple[int, int]]:
        if self.tables == "none":
            return []
        row_width = self.d_qk // 2 if self.row_width is None else self.row_width
        widths = (self.d_qk, self.d_qk) if self.tables == "full" else (row_width, self.d_qk - row_width)
        lengths = [2 * (b + h) - 1 for b, h in zip(pair(self.block), pair(self.halo), strict=True)]
        return list(zip(lengths, widths, strict=True))

    def inputs(self, dtype: torch.dtype = torch.float64, table_dtype: torch.dtype | None = None) -> Inputs:
        """Draw the five tensors, the same ones at every call.

        They are drawn in fp64 and rounded, so that every dtype asks nearly the same question.
        """
        generator = torch.Generator().manual_seed(zlib.crc32(self.name.encode()))

        def draw(shape: tuple[int, ...], to: torch.dtype) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(to)

        grid = (self.batch, *self.image, self.heads)
        tables: list[Tensor | None] = [draw(shape, table_dtype or dtype) for shape in self.table_shapes()] or [
            None,
            None,
        ]
        return Inputs(
            draw((self.batch, *self.query_grid, self.heads, self.d_qk), dtype),
            draw((*grid, self.d_qk), dtype),
            draw((*grid, self.d_v), dtype),
            *tables,
        )

    def output_gradient(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """A fixed random gradient of the output, for backward passes."""
        generator = torch.Generator().manual_seed(zlib.crc32(self.name.encode()) + 1)
        shape = (self.batch, *self.query_grid, self.heads, self.d_v)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


SIZES = [
    Size("figure_1", "the paper's Figure 1: four whole blocks", (4, 4), 2, 1),
    Size("prime_sides", "partial blocks on both axes, batch and heads", (7, 5), 3, 1, batch=2, heads=2),
    Size("one_row", "an image one pixel high", (1, 7), 2, 1),
    Size("one_column", "an image one pixel wide", (5, 1), 2, 2),
    Size("one_pixel", "nothing but the query's own pixel", (1, 1), 2, 1),
    Size("block_over_image", "one partial block that is the whole image", (3, 2), 5, 1),
    Size("halo_over_image", "every window is the whole image", (4, 3), 2, 6),
    Size("halo_zero", "blocks that do not see one another", (5, 5), 2, 0),
    Size("block_one", "one window per pixel", (4, 5), 1, 2, heads=2),
    Size("block_one_halo_zero", "each pixel sees itself: the output is the value", (3, 4), 1, 0, tables="full"),
    Size("many_heads", "heads and batch larger than the image", (2, 3), 2, 1, batch=3, heads=5, d_qk=2),
    Size("stride_2", "the strided layer of a stage", (6, 7), 4, 1, stride=2, heads=2),
    Size("stride_3", "one query per whole block", (7, 8), 3, 1, stride=3),
    Size("stride_2_odd_block", "blocks hold 2 and 1 queries by turns", (7, 6), 3, 1, stride=2),
    Size("stride_3_block_4", "queries stand at changing places of their blocks", (9, 7), 4, 1, stride=3),
    Size("stride_over_block", "blocks that hold no query", (9, 8), 2, 1, stride=3),
    Size("stride_far_over_block", "most blocks hold no query", (11, 6), 2, 1, stride=5, tables="full"),
    Size("stride_over_image", "a single query", (3, 4), 2, 1, stride=7),
    Size("rectangular", "rows and columns differ in everything", (5, 7), (2, 3), (1, 2), stride=(2, 1), heads=2),
    Size("rectangular_no_row_halo", "halo on one axis only", (6, 4), (3, 1), (0, 2), tables="full"),
    Size("rectangular_stride", "stride over the block on one axis", (8, 5), (2, 4), (2, 0), stride=(3, 2)),
    Size("split_uneven", "the tables share the channels unequally", (4, 5), 2, 1, d_qk=5, row_width=1, heads=2),
    Size("split_odd_width", "an odd head width, halved downwards", (3, 4), 2, 1, d_qk=3),
    Size("split_all_columns", "the column table reads every channel, the row table none", (3, 3), 2, 1, row_width=0),
    Size("full_tables", "both tables read all channels", (5, 4), 2, 1, tables="full", heads=2),
    Size("full_tables_width_one", "the narrowest head", (4, 3), 2, 1, d_qk=1, d_v=1, tables="full"),
    Size("no_tables", "content alone", (5, 4), 3, 1, d_qk=6, d_v=2, tables="none"),
    Size("wide_values", "values wider than keys", (3, 5), 2, 1, d_qk=2, d_v=7),
    Size("scale_zero", "uniform weights over the window", (4, 5), 2, 1, scale=0.0),
    Size("scale_negative", "the least alike wins", (4, 3), 2, 1, scale=-0.7),
    Size("scale_large", "a scale that is not the default, on both terms", (3, 5), 2, 1, scale=1.7, tables="full"),
    Size("zeros", "padding takes weight", (4, 4), 2, 1, border="zeros", heads=2),
    Size("zeros_partial", "a partial block's window is whole", (5, 4), 3, 2, border="zeros", tables="full"),
    Size("zeros_no_tables", "padding keys have logit 0", (5, 3), 2, 1, border="zeros", tables="none"),
    Size("zeros_block_over_image", "most of the window is padding", (2, 3), 4, 1, border="zeros"),
    Size("zeros_rectangular", "unequal padding on the two axes", (3, 5), (2, 4), (2, 1), border="zeros"),
    Size("zeros_stride_2", "strided, partial, padded", (5, 7), 4, 1, stride=2, border="zeros"),
    Size("zeros_stride_over_block", "the last blocks hold no query", (7, 8), 2, 1, stride=3, border="zeros"),
    Size("centered", "each query's own window", (6, 5), 3, 1, centered=True, heads=2),
    Size("centered_zeros", "the centered window cuts the padding too", (5, 4), 3, 1, centered=True, border="zeros"),
    Size("centered_stride_3", "centered on true pixels", (7, 8), 4, 2, stride=3, centered=True, tables="full"),
    Size("centered_rectangular", "a flat centered window", (5, 6), (2, 3), (0, 2), centered=True),
    Size("centered_halo_zero", "each query sees itself", (3, 4), 2, 0, centered=True),
    Size("offset_stride_1", "timm's offsets", (4, 8), 4, 1, stride=2, border="zeros", tables="full", offset_stride=1),
    Size("offset_stride_1_partial", "timm's offsets where timm cannot go", (6, 7), 4, 1, stride=2, offset_stride=1),
    Size("offset_stride_pair", "one axis only", (5, 7), (2, 4), 1, stride=(1, 4), offset_stride=(1, 2)),
    Size("offset_stride_same", "spelt out where it does not divide the block", (7, 5), 3, 1, stride=2, offset_stride=2),
    Size(
        "offset_stride_1_centered",
        "offsets in subsampled queries, distance in pixels",
        (8, 6),
        4,
        1,
        stride=2,
        offset_stride=1,
        centered=True,
        border="zeros",
    ),
]  # fmt: skip

BY_NAME = {size.name: size for size in SIZES}
