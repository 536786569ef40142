"""Sizes of tiles and warps for the Triton kernels: a pure function of shape and dtype, on every GPU.

Nothing is tuned while a program runs: a kernel that is chosen by a clock gives other bits on another day.
"""

from typing import NamedTuple

import torch

from halonet.ops.halo_attention.geometry import power_of_2
from halonet.ops.halo_attention.triton.problem import Problem


class Configuration(NamedTuple):
    """How one kernel is cut.

    Attributes:
        queries: Queries of a block at a time; a power of 2, at least 16.
        key_rows: Rows of keys at a time; a power of 2.
        key_columns: Columns of keys at a time; a power of 2. Rows times columns are at least 16.
        num_warps: Warps of a program.
        num_stages: Tiles under way at once, loads included.
    """

    queries: int
    key_rows: int
    key_columns: int
    num_warps: int
    num_stages: int


# Blocks of at most 16 queries (strided layers) and larger ones; by the widest head that is computed, in channels.
# Chosen among those that do not spill, by the fewest instructions of the code compiled for compute capability 9.0. For
# heads of 256 channels, "queries" spills a few registers: what does not takes twice the instructions. For 8.0, the
# backward's two kernels spill up to 240 bytes.
FEW_QUERIES = 16
TABLE: dict[str, dict[int, dict[int, Configuration]]] = {
    "forward": {
        16: {
            16: Configuration(16, 4, 16, 1, 2),
            32: Configuration(16, 4, 16, 1, 2),
            64: Configuration(16, 2, 16, 1, 2),
            128: Configuration(16, 2, 16, 2, 2),
            256: Configuration(16, 2, 16, 4, 2),
        },
        64: {
            16: Configuration(64, 2, 16, 2, 2),
            32: Configuration(64, 2, 16, 2, 2),
            64: Configuration(64, 4, 16, 4, 2),
            128: Configuration(64, 2, 16, 4, 2),
            256: Configuration(64, 2, 16, 4, 2),
        },
    },
    "queries": {
        16: {
            16: Configuration(16, 1, 16, 1, 1),
            32: Configuration(16, 1, 16, 2, 1),
            64: Configuration(16, 1, 16, 4, 1),
            128: Configuration(16, 1, 16, 2, 1),
            256: Configuration(16, 1, 16, 4, 1),
        },
        64: {
            16: Configuration(64, 2, 16, 2, 1),
            32: Configuration(64, 2, 16, 4, 1),
            64: Configuration(64, 2, 16, 4, 1),
            128: Configuration(64, 2, 16, 4, 1),
            256: Configuration(32, 1, 16, 4, 1),
        },
    },
    "keys": {
        16: {
            16: Configuration(16, 8, 8, 1, 1),
            32: Configuration(16, 8, 8, 2, 2),
            64: Configuration(16, 8, 8, 4, 2),
            128: Configuration(16, 8, 8, 4, 2),
            256: Configuration(16, 4, 8, 4, 1),
        },
        64: {
            16: Configuration(64, 8, 8, 2, 1),
            32: Configuration(64, 8, 8, 4, 2),
            64: Configuration(64, 8, 8, 4, 1),
            128: Configuration(32, 8, 8, 4, 1),
            256: Configuration(32, 4, 8, 8, 1),
        },
    },
}


def configuration_for(kernel: str, problem: Problem, dtype: torch.dtype) -> Configuration:
    """Choose for `kernel`, one of "forward", "queries" and "keys"."""
    queries = problem.rows.max_queries * problem.columns.max_queries
    few = 16 if queries <= FEW_QUERIES else 64
    # fp32 takes twice the room of half precision, fp64 twice that.
    widest = min(max(problem.padded_channels, problem.padded_value_channels) * max(dtype.itemsize // 2, 1), 256)
    chosen = TABLE[kernel][few][widest]
    columns = min(chosen.key_columns, power_of_2(problem.columns.window, least=4))
    rows = chosen.key_rows * chosen.key_columns // columns
    return chosen._replace(queries=min(chosen.queries, power_of_2(queries)), key_rows=rows, key_columns=columns)
