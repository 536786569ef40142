"""Search configurations of the Triton kernels for their table, without a GPU.

Every candidate is compiled for every architecture. Of those that spill nothing, the one whose instructions are issued
the soonest is proposed; how soon is a guess from how many warps a multiprocessor holds. On a GPU, `tune` measures.
"""

import ast
import hashlib
import itertools
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch

from halonet.benchmark.sizes import Size
from halonet.benchmark.triton.compile import (
    Card,
    compile_launch,
    figures_of,
    inputs_of,
    launches,
    programs_at_once,
    trips_of,
)
from halonet.benchmark.triton.tune import candidates
from halonet.errors import UserError
from halonet.ops.attention.triton import configurations
from halonet.ops.attention.triton.configurations import (
    ARCHITECTURES,
    TABLE,
    Cell,
    Configuration,
    configuration_of,
    fit,
)

KERNELS = ("forward", "queries", "keys")
CHANNELS = (16, 32, 64, 128, 256)
MOST_SHARED = 99 * 1024  # bytes that every GPU has for a program
# Clocks that a warp waits after an instruction. Assumed, not measured: two warps of a scheduler then reach 56 % of its
# rate, and four 71 %.
WAIT = 1.6


class Compiled(NamedTuple):
    """What a candidate takes; the least is the best, in the order of these fields.

    Spilled bytes and registers are of a thread, shared bytes of a program, each the most of the precisions of products;
    clocks are of all schedulers, waiting included.
    """

    spilled: int
    clocks: float
    registers: int
    shared: int
    configuration: Configuration


def cells(kernels: list[str], itemsizes: list[int], channels: list[int]) -> list[Cell]:
    """List cells of the table."""
    return [Cell(*each) for each in itertools.product(kernels, itemsizes, (16, 64), channels)]


def size_of(cell: Cell) -> Size:
    """Make a layer like H1's with the cell's channels; queries and keys have at most 64, as in H4 to H7."""
    return Size(
        rows=64,
        columns=64,
        heads=4,
        query_channels=min(cell.channels, 64),
        value_channels=cell.channels,
        stride=2 if cell.queries == 16 else 1,
    )


def compile_candidate(cell: Cell, configuration: Configuration, architecture: int) -> Compiled | None:
    """Compile a candidate, in fp32 with exact and with rounded products; None if it does not fit."""
    size, dtype = size_of(cell), torch.bfloat16 if cell.itemsize == 2 else torch.float32
    compiled = []
    for precision in ("ieee", "tf32")[: cell.itemsize // 2]:
        torch.backends.cuda.matmul.fp32_precision = precision
        inputs = inputs_of(size, dtype)
        launched = launches(inputs, size.geometry, lambda _, problem: fit(configuration, problem))[cell.kernel]
        figures = figures_of(compile_launch(launched, architecture), trips_of(cell.kernel, size, launched))
        if figures["shared"] > MOST_SHARED:
            return None
        programs = launched.programs * launched.arguments.get("items", 1)
        warps = programs_at_once(figures, configuration.num_warps, Card()) * configuration.num_warps
        issued = figures["instructions"] * configuration.num_warps * programs
        clocks = issued * (1 + WAIT / (warps / Card().issued))
        compiled.append(Compiled(figures["spilled"], clocks, figures["registers"], figures["shared"], configuration))
    spilled, clocks, registers, shared, _ = zip(*compiled, strict=True)
    return Compiled(max(spilled), sum(clocks), max(registers), max(shared), configuration)


def search(cell: Cell) -> str:
    """Write the table's line for a cell."""
    chosen = []
    for architecture in ARCHITECTURES:
        tried = candidates(cell, [2 if cell.kernel == "forward" else 1])
        compiled = [compile_candidate(cell, each, architecture) for each in tried]
        chosen.append(min(each for each in compiled if each))
        print(cell, architecture, chosen[-1], file=sys.stderr, flush=True)
    found = ", ".join(str(tuple(each.configuration)) for each in chosen)
    return f'    Cell("{cell.kernel}", {cell.itemsize}, {cell.queries}, {cell.channels}): ({found}),'


def describe(cell: Cell) -> list[dict[str, Any]]:
    """Describe what the table's configurations of a cell take, in a row for each architecture."""
    rows = []
    for architecture in ARCHITECTURES:
        configuration = configuration_of(cell, architecture)
        compiled = compile_candidate(cell, configuration, architecture)
        if compiled is None:
            raise UserError(f"{cell} as {tuple(configuration)} takes more than {MOST_SHARED} bytes of shared memory")
        figures = {name: getattr(compiled, name) for name in ("spilled", "registers", "shared")}
        rows.append(cell._asdict() | {"architecture": architecture, "configuration": list(configuration)} | figures)
    return rows


def digest() -> str:
    """Hash the kernels and the table, without their comments and layout."""
    folder = Path(configurations.__file__).parent
    names = ("tiles", "forward", "backward", "problem", "launch", "configurations")
    trees = [ast.parse((folder / f"{name}.py").read_text(encoding="utf-8")) for name in names]
    return hashlib.sha256("".join(map(ast.dump, trees)).encode()).hexdigest()[:16]


def search_all(chosen: list[Cell], processes: int | None) -> Iterator[str]:
    """Search cells in so many processes; yield the table's lines."""
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(search, chosen)


def describe_table(processes: int | None) -> list[dict[str, Any]]:
    """Describe all cells of the table, in so many processes."""
    with ProcessPoolExecutor(processes) as pool:
        return list(itertools.chain.from_iterable(pool.map(describe, TABLE)))
