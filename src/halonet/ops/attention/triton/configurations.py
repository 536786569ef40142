"""Sizes of tiles and warps for the Triton kernels: a pure function of shape, dtype and GPU.

Nothing is tuned at run time: kernels chosen by timing could differ from run to run, and so could their results.
"""

from functools import cache
from typing import NamedTuple

import torch

from halonet.ops.attention.geometry import power_of_2
from halonet.ops.attention.triton.problem import Problem


class Configuration(NamedTuple):
    """How one kernel divides its work.

    Attributes:
        queries: Queries of a block at a time; a power of 2, at least 16.
        key_rows: Rows of keys at a time; a power of 2.
        key_columns: Columns of keys at a time; a power of 2. Rows times columns are at least 16.
        num_warps: Warps of a program.
        num_stages: Stages of the software pipeline: how many tiles are loaded or computed at once.
    """

    queries: int
    key_rows: int
    key_columns: int
    num_warps: int
    num_stages: int


class Cell(NamedTuple):
    """The calls that a row of the table serves.

    Attributes:
        kernel: "forward", "queries" or "keys".
        itemsize: Bytes of an element: 2 or 4. fp64 uses the row of fp32 with twice the channels.
        queries: Queries of a block: 16 for up to 16 (strided layers), 64 for all larger blocks.
        channels: Channels of the widest head; a power of 2 from 16 to 256.
    """

    kernel: str
    itemsize: int
    queries: int
    channels: int


class Measured(NamedTuple):
    """The fastest configuration of a kernel that was measured on a GPU.

    Attributes:
        cut: The fields of a `Configuration`.
        layer: The layer of H1 that was timed: 256 pixels, batch 256, bfloat16 with float32 tables.
        milliseconds: GPU time with this cut.
        milliseconds_of_table: GPU time with the cut of `TABLE`.
        spilled: Registers per thread that the compiler (Triton 3.6) spilled; a cut may spill and still be the fastest.
    """

    cut: tuple[int, int, int, int, int]
    layer: str
    milliseconds: float
    milliseconds_of_table: float
    spilled: int


# Compute capabilities, times 10, that the table has columns for.
ARCHITECTURES = (80, 90, 100)
# Nothing in this table was timed: `MEASURED`, below, comes before it. Proposed by `halonet benchmark triton search` for
# blocks of 8 and halos of 3 pixels, where none spills a register but "queries" in fp32 with 128 channels and more. Some
# rows of 128 and 256 channels were searched for 8.0 alone.
TABLE: dict[Cell, tuple[tuple[int, int, int, int, int], ...]] = {
    Cell("forward", 2, 16, 16): ((16, 2, 16, 1, 2), (16, 2, 16, 1, 2), (16, 2, 16, 1, 2)),
    Cell("forward", 2, 16, 32): ((16, 2, 16, 1, 2), (16, 2, 16, 1, 2), (16, 2, 16, 1, 2)),
    Cell("forward", 2, 16, 64): ((16, 2, 16, 1, 2), (16, 2, 16, 1, 2), (16, 2, 16, 1, 2)),
    Cell("forward", 2, 16, 128): ((16, 1, 16, 1, 2), (16, 2, 16, 2, 2), (16, 2, 16, 2, 2)),
    Cell("forward", 2, 16, 256): ((16, 1, 16, 1, 2), (16, 1, 16, 1, 2), (16, 1, 16, 1, 2)),
    Cell("forward", 2, 64, 16): ((64, 2, 16, 2, 2), (64, 2, 16, 2, 2), (64, 2, 16, 2, 2)),
    Cell("forward", 2, 64, 32): ((64, 2, 16, 2, 2), (64, 2, 16, 2, 2), (64, 1, 16, 2, 2)),
    Cell("forward", 2, 64, 64): ((64, 2, 16, 2, 2), (64, 1, 16, 2, 2), (64, 1, 16, 2, 2)),
    Cell("forward", 2, 64, 128): ((32, 1, 16, 1, 2), (64, 4, 16, 4, 2), (64, 1, 16, 2, 2)),
    Cell("forward", 2, 64, 256): ((32, 2, 16, 2, 2), (64, 2, 16, 4, 2), (32, 1, 16, 2, 2)),
    Cell("forward", 4, 16, 16): ((16, 2, 16, 1, 2), (16, 2, 16, 1, 2), (16, 2, 16, 1, 2)),
    Cell("forward", 4, 16, 32): ((16, 1, 16, 2, 2), (16, 1, 16, 2, 2), (16, 1, 16, 2, 2)),
    Cell("forward", 4, 16, 64): ((16, 2, 16, 2, 2), (16, 2, 16, 2, 2), (16, 1, 16, 2, 2)),
    Cell("forward", 4, 16, 128): ((16, 2, 16, 4, 2), (16, 1, 16, 2, 2), (16, 1, 16, 2, 2)),
    Cell("forward", 4, 16, 256): ((16, 1, 16, 2, 2), (16, 2, 16, 4, 2), (16, 1, 16, 2, 2)),
    Cell("forward", 4, 64, 16): ((64, 1, 16, 2, 2), (64, 1, 16, 2, 2), (64, 1, 16, 2, 2)),
    Cell("forward", 4, 64, 32): ((64, 1, 16, 2, 2), (64, 1, 16, 4, 2), (64, 1, 16, 4, 2)),
    Cell("forward", 4, 64, 64): ((32, 1, 16, 4, 2), (64, 2, 16, 8, 2), (64, 1, 16, 8, 2)),
    Cell("forward", 4, 64, 128): ((32, 1, 16, 4, 2), (32, 1, 16, 4, 2), (32, 1, 16, 4, 2)),
    Cell("forward", 4, 64, 256): ((32, 2, 16, 8, 2), (32, 2, 16, 8, 2), (32, 2, 16, 8, 2)),
    Cell("queries", 2, 16, 16): ((16, 1, 16, 1, 1), (16, 1, 16, 1, 1), (16, 2, 16, 1, 1)),
    Cell("queries", 2, 16, 32): ((16, 2, 16, 1, 1), (16, 2, 16, 1, 1), (16, 1, 16, 1, 1)),
    Cell("queries", 2, 16, 64): ((16, 2, 16, 2, 1), (16, 2, 16, 2, 1), (16, 1, 16, 2, 1)),
    Cell("queries", 2, 16, 128): ((16, 1, 16, 2, 1), (16, 1, 16, 2, 1), (16, 1, 16, 2, 1)),
    Cell("queries", 2, 16, 256): ((16, 1, 16, 2, 1), (16, 1, 16, 2, 1), (16, 1, 16, 2, 1)),
    Cell("queries", 2, 64, 16): ((64, 2, 16, 2, 1), (64, 1, 16, 2, 1), (64, 2, 16, 2, 1)),
    Cell("queries", 2, 64, 32): ((64, 1, 16, 2, 1), (64, 1, 16, 2, 1), (64, 2, 16, 2, 1)),
    Cell("queries", 2, 64, 64): ((64, 2, 16, 4, 1), (64, 2, 16, 4, 1), (32, 2, 16, 4, 1)),
    Cell("queries", 2, 64, 128): ((64, 1, 16, 4, 1), (64, 1, 16, 4, 1), (64, 1, 16, 4, 1)),
    Cell("queries", 2, 64, 256): ((64, 1, 16, 4, 1), (32, 1, 16, 4, 1), (32, 1, 16, 4, 1)),
    Cell("queries", 4, 16, 16): ((16, 2, 16, 1, 1), (16, 2, 16, 2, 1), (16, 2, 16, 2, 1)),
    Cell("queries", 4, 16, 32): ((16, 1, 16, 2, 1), (16, 1, 16, 2, 1), (16, 1, 16, 2, 1)),
    Cell("queries", 4, 16, 64): ((16, 1, 16, 4, 1), (16, 1, 16, 4, 1), (16, 1, 16, 4, 1)),
    Cell("queries", 4, 16, 128): ((16, 1, 16, 4, 1), (16, 1, 16, 8, 1), (16, 1, 16, 8, 1)),
    Cell("queries", 4, 16, 256): ((16, 1, 16, 4, 1), (16, 1, 16, 4, 1), (16, 1, 16, 4, 1)),
    Cell("queries", 4, 64, 16): ((64, 1, 16, 2, 1), (64, 1, 16, 2, 1), (64, 1, 16, 2, 1)),
    Cell("queries", 4, 64, 32): ((32, 1, 16, 4, 1), (64, 2, 16, 4, 1), (64, 2, 16, 4, 1)),
    Cell("queries", 4, 64, 64): ((32, 1, 16, 4, 1), (32, 1, 16, 8, 1), (32, 1, 16, 8, 1)),
    Cell("queries", 4, 64, 128): ((32, 1, 16, 8, 1), (32, 1, 16, 8, 1), (32, 1, 16, 4, 1)),
    Cell("queries", 4, 64, 256): ((32, 1, 16, 4, 1), (32, 1, 16, 4, 1), (32, 1, 16, 4, 1)),
    Cell("keys", 2, 16, 16): ((16, 8, 8, 1, 1), (16, 8, 8, 1, 1), (16, 8, 8, 2, 1)),
    Cell("keys", 2, 16, 32): ((16, 8, 8, 2, 1), (16, 8, 8, 2, 1), (16, 8, 8, 2, 1)),
    Cell("keys", 2, 16, 64): ((16, 4, 8, 2, 1), (16, 4, 8, 2, 1), (16, 4, 8, 2, 1)),
    Cell("keys", 2, 16, 128): ((16, 8, 8, 4, 1), (16, 8, 8, 4, 1), (16, 4, 8, 4, 1)),
    Cell("keys", 2, 16, 256): ((16, 4, 4, 2, 1), (16, 4, 4, 2, 1), (16, 4, 4, 2, 1)),
    Cell("keys", 2, 64, 16): ((32, 8, 8, 2, 1), (64, 8, 8, 2, 1), (64, 8, 8, 2, 1)),
    Cell("keys", 2, 64, 32): ((32, 8, 8, 2, 1), (32, 8, 8, 2, 1), (32, 8, 8, 2, 1)),
    Cell("keys", 2, 64, 64): ((32, 8, 8, 4, 1), (64, 4, 8, 2, 1), (64, 4, 8, 2, 1)),
    Cell("keys", 2, 64, 128): ((64, 4, 8, 4, 1), (64, 4, 8, 4, 1), (64, 4, 8, 4, 1)),
    Cell("keys", 2, 64, 256): ((64, 4, 4, 4, 1), (64, 4, 4, 4, 1), (64, 4, 4, 4, 1)),
    Cell("keys", 4, 16, 16): ((16, 8, 8, 2, 1), (16, 8, 8, 2, 1), (16, 8, 8, 4, 1)),
    Cell("keys", 4, 16, 32): ((16, 4, 8, 4, 1), (16, 8, 8, 4, 1), (16, 8, 8, 4, 1)),
    Cell("keys", 4, 16, 64): ((16, 8, 8, 4, 1), (16, 8, 8, 8, 1), (16, 8, 8, 8, 1)),
    Cell("keys", 4, 16, 128): ((16, 4, 8, 4, 1), (16, 4, 8, 4, 1), (16, 8, 8, 8, 1)),
    Cell("keys", 4, 16, 256): ((16, 4, 8, 8, 1), (16, 4, 8, 8, 1), (16, 4, 8, 8, 1)),
    Cell("keys", 4, 64, 16): ((32, 8, 8, 4, 1), (32, 4, 8, 2, 1), (32, 8, 8, 4, 1)),
    Cell("keys", 4, 64, 32): ((32, 8, 8, 4, 1), (32, 8, 8, 4, 1), (32, 8, 8, 4, 1)),
    Cell("keys", 4, 64, 64): ((32, 4, 8, 4, 1), (32, 4, 8, 4, 1), (32, 8, 8, 8, 1)),
    Cell("keys", 4, 64, 128): ((32, 4, 8, 8, 1), (32, 4, 8, 8, 1), (32, 4, 8, 8, 1)),
    Cell("keys", 4, 64, 256): ((16, 4, 4, 4, 1), (16, 4, 4, 4, 1), (16, 4, 4, 4, 1)),
}
# The fastest cuts on an NVIDIA H100 80GB HBM3 (torch 2.11.0+cu130, Triton 3.6.0). The first ten rows: of 485 timed at
# commit f6ecc6c, 26 November 2026. The last eight: of 291 timed at commit 6797d9f, 27 November 2026.
# fmt: off
MEASURED: dict[tuple[Cell, int], Measured] = {
    (Cell("forward", 2, 64, 16), 90): Measured((64, 1, 16, 1, 3), "stage1",         0.7795, 0.8926, 0),
    (Cell("queries", 2, 64, 16), 90): Measured((64, 2, 16, 2, 3), "stage1",         1.3437, 2.3995, 2),
    (Cell("keys",    2, 64, 16), 90): Measured((32, 8,  8, 1, 3), "stage1",         1.6153, 2.0766, 0),
    (Cell("forward", 2, 16, 16), 90): Measured((16, 2, 16, 1, 2), "stage2-strided", 0.6172, 0.6172, 0),
    (Cell("queries", 2, 16, 16), 90): Measured((16, 4, 16, 1, 2), "stage2-strided", 1.3784, 2.5102, 4),
    (Cell("keys",    2, 16, 16), 90): Measured((16, 8,  8, 1, 2), "stage2-strided", 1.3559, 1.4740, 0),
    (Cell("forward", 2, 64, 32), 90): Measured((64, 1, 16, 1, 2), "stage3",         0.1434, 0.1671, 0),
    (Cell("queries", 2, 64, 32), 90): Measured((64, 2, 16, 2, 2), "stage3",         0.2876, 0.3724, 52),
    (Cell("keys",    2, 64, 32), 90): Measured((32, 8, 16, 2, 2), "stage3",         0.2944, 0.3935, 62),
    (Cell("forward", 2, 16, 32), 90): Measured((16, 2, 16, 1, 2), "stage3-strided", 0.2298, 0.2298, 0),
    (Cell("forward", 2, 64, 64), 90): Measured((64, 1, 16, 1, 3), "stage4",         0.0514, 0.0568, 8),
    (Cell("queries", 2, 64, 64), 90): Measured((64, 1, 16, 2, 3), "stage4",         0.0927, 0.1124, 36),
    (Cell("keys",    2, 64, 64), 90): Measured((64, 8,  8, 4, 3), "stage4",         0.0580, 0.0855, 0),
    (Cell("forward", 2, 16, 64), 90): Measured((16, 1, 16, 1, 3), "stage4-strided", 0.0976, 0.1104, 0),
    (Cell("queries", 2, 16, 64), 90): Measured((16, 1, 16, 1, 3), "stage4-strided", 0.1776, 0.2991, 120),
    (Cell("keys",    2, 16, 64), 90): Measured((16, 8,  8, 2, 2), "stage4-strided", 0.2316, 0.2756, 22),
    (Cell("queries", 2, 16, 32), 90): Measured((16, 1, 16, 1, 3), "stage3-strided", 0.4211, 0.5857, 2),
    (Cell("keys",    2, 16, 32), 90): Measured((16, 8,  8, 1, 2), "stage3-strided", 0.5287, 0.6819, 14),
}
# fmt: on


@cache
def architecture_of(device: torch.device) -> int:
    """Choose the column of a device: that of its generation, or of 8.0, whose instructions all have."""
    if device.type != "cuda" or torch.version.hip:
        return 80
    major, _ = torch.cuda.get_device_capability(device)
    return {9: 90, 10: 100, 11: 100}.get(major, 80)


def cell_for(kernel: str, problem: Problem, dtype: torch.dtype) -> Cell:
    """Find the row of a kernel, one of "forward", "queries" and "keys"."""
    queries = problem.rows.max_queries * problem.columns.max_queries
    itemsize = 2 if dtype.itemsize == 2 else 4
    widest = max(problem.padded_channels, problem.padded_value_channels) * dtype.itemsize // itemsize
    return Cell(kernel, itemsize, 16 if queries <= 16 else 64, min(widest, 256))


@cache
def configuration_for(kernel: str, problem: Problem, dtype: torch.dtype, architecture: int) -> Configuration:
    """Choose for a kernel and an architecture of the table, and fit to small windows."""
    return fit(configuration_of(cell_for(kernel, problem, dtype), architecture), problem)


def configuration_of(cell: Cell, architecture: int) -> Configuration:
    """Look a row up: what was measured, else what the table predicts."""
    measured = MEASURED.get((cell, architecture))
    return Configuration(*(measured.cut if measured else TABLE[cell][ARCHITECTURES.index(architecture)]))


def fit(configuration: Configuration, problem: Problem) -> Configuration:
    """Make tiles no larger than blocks and windows need."""
    queries = problem.rows.max_queries * problem.columns.max_queries
    window = problem.columns.window
    columns = min(configuration.key_columns, power_of_2(window, least=4))
    # A window of 18 is two tiles of 16 columns, or three of 8 and a quarter less to compute.
    if columns == 16 and -(-window // 8) * 8 * 5 <= -(-window // 16) * 16 * 4:
        columns = 8
    rows = configuration.key_rows * configuration.key_columns // columns
    return configuration._replace(
        queries=min(configuration.queries, power_of_2(queries)), key_rows=rows, key_columns=columns
    )
