"""The Triton kernels' table of configurations, without a GPU: `python -m tools.search_configurations --help`.

Every candidate is compiled for every architecture. Of those that spill nothing, the one whose instructions are issued
the soonest is proposed for the table; how soon is a guess from how many warps a multiprocessor holds. `--record`
compiles the table as it stands and keeps what its kernels take. On a GPU, `halonet benchmark tune` measures.
"""

import argparse
import ast
import hashlib
import itertools
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton

from halonet.benchmark.sizes import Size
from halonet.benchmark.tune import candidates
from halonet.ops.attention.triton import configurations
from halonet.ops.attention.triton.configurations import (
    ARCHITECTURES,
    TABLE,
    Cell,
    Configuration,
    configuration_of,
    fit,
)
from tools.compile_triton import Card, compile_launch, figures_of, inputs_of, launches, programs_at_once, trips_of

KERNELS = ("forward", "queries", "keys")
CHANNELS = (16, 32, 64, 128, 256)
# What every GPU has for a program.
MOST_SHARED = 99 * 1024
# Clocks that a warp waits after an instruction. Nothing measured: what makes two warps of a scheduler reach 56 % of its
# rate, and four 71 %.
WAIT = 1.6


class Trial(NamedTuple):
    """What a candidate takes; the smaller, the better, field by field.

    Attributes:
        spilled: Bytes of a thread; the most of the precisions of products, as are registers and shared memory.
        clocks: Of all schedulers, waiting included.
        registers: Of a thread.
        shared: Bytes of a program.
        configuration: The candidate.
    """

    spilled: int
    clocks: float
    registers: int
    shared: int
    configuration: Configuration


def cells(kernels: list[str], itemsizes: list[int], channels: list[int]) -> list[Cell]:
    """List the rows of the table."""
    return [Cell(*each) for each in itertools.product(kernels, itemsizes, (16, 64), channels)]


def size_of(cell: Cell) -> Size:
    """Make a layer of H1's kind with heads as wide as the row of the table says.

    Of more than 64 channels, as in H4 to H7, are the values alone.
    """
    return Size(
        rows=64,
        columns=64,
        heads=4,
        query_channels=min(cell.channels, 64),
        value_channels=cell.channels,
        stride=2 if cell.queries == 16 else 1,
    )


def attempt(cell: Cell, configuration: Configuration, architecture: int) -> Trial | None:
    """Compile a candidate; None if it does not fit. Products of fp32 are compiled exact and rounded."""
    size, dtype = size_of(cell), torch.bfloat16 if cell.itemsize == 2 else torch.float32
    trials = []
    for precision in ("ieee", "tf32")[: cell.itemsize // 2]:
        torch.backends.cuda.matmul.fp32_precision = precision
        inputs = inputs_of(size, dtype)
        launched = launches(inputs, size.geometry, lambda _, problem: fit(configuration, problem))[cell.kernel]
        compiled = compile_launch(launched, architecture)
        figures = figures_of(compiled, trips_of(cell.kernel, size, launched))
        if figures["shared"] > MOST_SHARED:
            return None
        programs = launched.programs * launched.arguments.get("items", 1)
        warps = programs_at_once(figures, configuration.num_warps, Card()) * configuration.num_warps
        issued = figures["instructions"] * configuration.num_warps * programs
        clocks = issued * (1 + WAIT / (warps / Card().issued))
        trials.append(Trial(figures["spilled"], clocks, figures["registers"], figures["shared"], configuration))
    spilled, clocks, registers, shared, _ = zip(*trials, strict=True)
    return Trial(max(spilled), sum(clocks), max(registers), max(shared), configuration)


def search(cell: Cell) -> str:
    """Write the row of the table for a cell."""
    chosen = []
    for architecture in ARCHITECTURES:
        trials = [
            attempt(cell, each, architecture) for each in candidates(cell, [2 if cell.kernel == "forward" else 1])
        ]
        chosen.append(min(trial for trial in trials if trial))
        print(cell, architecture, chosen[-1], file=sys.stderr, flush=True)
    cuts = ", ".join(str(tuple(each.configuration)) for each in chosen)
    return f'    Cell("{cell.kernel}", {cell.itemsize}, {cell.queries}, {cell.channels}): ({cuts}),'


def describe(cell: Cell) -> list[dict[str, Any]]:
    """Say what the table's configurations take for a cell, an architecture a row."""
    rows = []
    for architecture in ARCHITECTURES:
        cut = configuration_of(cell, architecture)
        trial = attempt(cell, cut, architecture)
        if trial is None:
            raise SystemExit(f"{cell} cut as {tuple(cut)} takes more than {MOST_SHARED} bytes of shared memory")
        figures = {name: getattr(trial, name) for name in ("spilled", "registers", "shared")}
        rows.append(cell._asdict() | {"architecture": architecture, "cut": list(cut)} | figures)
    return rows


def digest() -> str:
    """Name the kernels and the table as they stand, whatever their comments and layout."""
    folder = Path(configurations.__file__).parent
    names = ("tiles", "forward", "backward", "problem", "launch", "configurations")
    trees = [ast.parse((folder / f"{name}.py").read_text(encoding="utf-8")) for name in names]
    return hashlib.sha256("".join(map(ast.dump, trees)).encode()).hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kernels", nargs="+", default=KERNELS, choices=KERNELS, help="which kernels")
    parser.add_argument("--itemsizes", nargs="+", type=int, default=[2, 4], choices=[2, 4], help="bytes of a number")
    parser.add_argument("--channels", nargs="+", type=int, default=CHANNELS, choices=CHANNELS, help="widths of heads")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="that compile at once")
    parser.add_argument("--record", type=Path, help="do not search: say in this file what the whole table takes")
    options = parser.parse_args()
    with ProcessPoolExecutor(options.processes) as pool:
        if options.record is None:
            for row in pool.map(search, cells(options.kernels, options.itemsizes, options.channels)):
                print(row, flush=True)
            return
        rows = list(itertools.chain.from_iterable(pool.map(describe, TABLE)))
    record = {"triton": triton.__version__, "kernels": digest(), "rows": rows}
    options.record.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
