"""Compile the Triton kernels without a GPU, count what they take, and predict what limits them.

Registers, spilled bytes and shared memory come from the compiled kernel, instructions from its disassembly. Needs
`TRITON_INTERPRET=0` in the environment before Triton is imported: interpreted kernels do not compile.
"""

import math
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from halonet.benchmark.sizes import Size
from halonet.ops.attention.geometry import Geometry
from halonet.ops.attention.registration import Inputs
from halonet.ops.attention.triton.configurations import Configuration, configuration_for
from halonet.ops.attention.triton.launch import Launch, forward_launch, launch_for_keys, launch_for_queries
from halonet.ops.attention.triton.problem import Problem, make_problem

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def inputs_of(size: Size, dtype: torch.dtype, batch: int = 256) -> Inputs:
    """Make tensors without memory; tables are fp32, as parameters are under autocast."""

    def empty(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    rows, columns = size.geometry[:2]
    grid = (batch, size.rows, size.columns, size.heads)
    return Inputs(
        empty(batch, rows.num_queries, columns.num_queries, size.heads, size.query_channels),
        empty(*grid, size.query_channels),
        empty(*grid, size.value_channels),
        empty(rows.table_length, size.table_widths[0], dtype=torch.float32),
        empty(columns.table_length, size.table_widths[1], dtype=torch.float32),
    )


def launches(
    inputs: Inputs, geometry: Geometry, configure: Callable[[str, Problem], Configuration]
) -> dict[str, Launch]:
    """Make the launches of a call's three kernels; `configure` takes a kernel's name and its problem."""
    query, key, value = inputs[:3]
    output = query.new_empty(*query.shape[:4], value.shape[4])
    log_sum = query.new_empty(query.shape[:4], dtype=torch.float32)
    scale = query.shape[4] ** -0.5
    problem = make_problem(inputs, geometry, scale)
    call = (geometry, scale)
    of_queries, _, delta = launch_for_queries(
        output, inputs, output, log_sum, *call, query, configuration=configure("queries", problem)
    )
    return {
        "forward": forward_launch(inputs, *call, output, log_sum, configuration=configure("forward", problem)),
        "queries": of_queries,
        "keys": launch_for_keys(
            output, inputs, log_sum, delta, *call, key, value, configuration=configure("keys", problem)
        ),
    }


def table_configuration(dtype: torch.dtype, architecture: int) -> Callable[[str, Problem], Configuration]:
    """Take configurations from the table."""
    return lambda kernel, problem: configuration_for(kernel, problem, dtype, architecture)


def signature_of(argument: Any, path: tuple[int, ...], constants: dict, attributes: dict) -> Any:
    """Type of an argument as Triton specializes it: 1 is a constant, and multiples of 16 are noted."""
    if isinstance(argument, tuple):
        parts = [signature_of(each, (*path, i), constants, attributes) for i, each in enumerate(argument)]
        return type(argument)(*parts) if hasattr(argument, "_fields") else tuple(parts)
    if isinstance(argument, Tensor):
        attributes[path] = [["tt.divisibility", 16]]
        return "*" + NAMES[argument.dtype]
    if argument == 1:
        constants[path] = 1
        return "constexpr"
    if argument % 16 == 0:
        attributes[path] = [["tt.divisibility", 16]]
    return "i32" if -(2**31) <= argument < 2**31 else "i64"


def compile_launch(launched: Launch, architecture: int) -> Any:
    """Compile a kernel as its launch would on a GPU of compute capability `architecture` / 10."""
    constants, attributes, signature = {}, {}, {}
    arguments = launched.compiled_arguments()
    for index, parameter in enumerate(launched.kernel.params):
        argument = arguments[parameter.name]
        if parameter.is_constexpr:
            constants[(index,)] = argument
            signature[parameter.name] = "constexpr"
        else:
            signature[parameter.name] = signature_of(argument, (index,), constants, attributes)
    source = ASTSource(launched.kernel, signature, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=launched.options)


def figures_of(compiled: Any, trips: list[float]) -> dict[str, Any]:
    """Registers, spilled bytes and instructions of a thread, and shared bytes of a program; `trips` as `trips_of`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(compiled.asm["cubin"])
        usage = _output_of("cuobjdump", "--dump-resource-usage", path)
        text = _output_of("nvdisasm", "-c", path)
    sizes = {name: int(number) for name, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    return {
        "registers": sizes["REG"],
        "spilled": sizes["STACK"] + sizes["LOCAL"],
        "shared": compiled.metadata.shared,
        "instructions": count_instructions(text, trips),
    }


def _output_of(tool: str, *arguments: str | Path) -> str:
    return subprocess.run([TOOLS / tool, *arguments], capture_output=True, text=True, check=True).stdout


def count_instructions(text: str, trips: list[float]) -> float:
    """Count the instructions that a thread executes, from a disassembly whose loops are nested in each other."""
    labels, loops, count = {}, [], 0
    for line in text.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = count
        elif re.match(r"\s+/\*[0-9a-f]+\*/", line):
            back = re.search(r"BRA.*`\((\.L_x_\d+)\)", line)
            # A branch to itself closes the text.
            if back and count - labels.get(back[1], count) > 3:
                loops.append((count - labels[back[1]], labels[back[1]]))
            count += 1
    executed, around, times = 0, count, 1
    for (length, _), trip in zip(sorted(loops, reverse=True), trips, strict=False):  # others wait or are remainders
        executed += times * (around - length)
        around, times = length, times * trip
    return executed + times * around


def trips_of(kernel: str, size: Size, launched: Launch) -> list[float]:
    """Mean iterations of a kernel's loops over an image's programs, the outermost first."""
    tile, axes = launched.arguments["tile"], size.geometry[:2]
    if kernel == "keys":
        shifts = (launched.arguments["row_shift"], launched.arguments["column_shift"])
        counts = (launched.arguments["row_tiles"], launched.arguments["column_tiles"])
        meetings = launched.arguments["parts"]
        for axis, shift, count, side in zip(axes, shifts, counts, tile[1:3], strict=True):
            starts = [index * side - shift for index in range(count)]
            blocks = [
                min((start + side - 1 + axis.halo) // axis.block + 1, axis.num_blocks)
                - max(start - axis.halo, 0) // axis.block
                for start in starts
            ]
            meetings *= sum(blocks) / count
        return [meetings]
    rows = axes[0]
    tops = [block * rows.block - rows.halo for block in range(rows.num_blocks)]
    seen = [(max(-top, 0), min(rows.size - top, rows.window)) for top in tops]
    row_tiles = sum(-(-after // tile.key_rows) - first // tile.key_rows for first, after in seen) / rows.num_blocks
    tiles = row_tiles * tile.tiles_across
    return [tiles] if kernel == "forward" or launched.arguments["items"] == 1 else [1, tiles]


class Card(NamedTuple):
    """Nominal figures of a GPU; nothing is measured."""

    name: str = "H100 SXM"
    multiprocessors: int = 132
    clocks_per_ms: float = 1.7e6
    bytes_per_ms: float = 3.0e9
    # Of a multiprocessor and clock: instructions issued, multiply-adds of bf16 matrices, exponentials.
    issued: int = 4
    multiply_adds: int = 2048
    exponentials: int = 16
    registers: int = 65536
    shared: int = 228 * 1024
    warps: int = 64
    programs: int = 32


def programs_at_once(figures: dict[str, Any], warps: int, card: Card) -> int:
    """Number of programs of so many warps that a multiprocessor holds."""
    return min(
        card.registers // (-(-figures["registers"] // 8) * 8 * 32 * warps),
        card.shared // (figures["shared"] + 1024),
        card.warps // warps,
        card.programs,
    )


def predict(kernel: str, size: Size, batch: int, launched: Launch, figures: dict[str, Any], card: Card) -> dict:
    """Predict the least time of each part alone, and the programs of a multiprocessor at once.

    Bytes are those of every tensor once. Products and exponentials are of whole tiles, padding included.
    """
    tile, warps = launched.arguments["tile"], launched.configuration.num_warps
    geometry = size.geometry
    images = batch * size.heads
    queries = images * geometry.rows.num_queries * geometry.columns.num_queries
    keys = images * size.rows * size.columns
    wide, value = size.query_channels, size.value_channels
    per_query = {"forward": wide + value, "queries": 2 * wide + 2 * value, "keys": wide + value}[kernel]
    per_key = {"forward": wide + value, "queries": wide + value, "keys": 2 * (wide + value)}[kernel]
    count = launched.programs * launched.arguments.get("items", 1)
    pairs = count * math.prod(trips_of(kernel, size, launched)) * tile.queries * tile.key_rows * tile.key_columns
    slots = 2 * tile.slots
    depth = {
        "forward": wide + slots + value,
        "queries": 2 * wide + 2 * slots + value,
        "keys": 2 * wide + slots + 2 * value,
    }[kernel]
    rate = card.multiprocessors * card.clocks_per_ms
    return {
        "programs_at_once": programs_at_once(figures, warps, card),
        "issue_milliseconds": figures["instructions"] * warps * count / (card.issued * rate),
        "bytes_milliseconds": 2 * (per_query * queries + per_key * keys) / card.bytes_per_ms,
        "products_milliseconds": pairs * depth / (card.multiply_adds * rate),
        "exponentials_milliseconds": pairs / (card.exponentials * rate),
    }


def measure(sizes: dict[str, Size], dtypes: list[str], architectures: list[int], batch: int) -> Iterator[dict]:
    """Compile the kernels of some sizes; yield a row for each; predict too for bf16 on compute capability 9.0."""
    for name, size in sizes.items():
        for dtype in dtypes:
            for architecture in architectures:
                inputs = inputs_of(size, DTYPES[dtype], batch)
                configure = table_configuration(DTYPES[dtype], architecture)
                for kernel, launched in launches(inputs, size.geometry, configure).items():
                    figures = figures_of(compile_launch(launched, architecture), trips_of(kernel, size, launched))
                    row = {"size": name, "dtype": dtype, "architecture": architecture, "kernel": kernel, **figures}
                    row |= launched.configuration._asdict()
                    if (dtype, architecture) == ("bf16", 90):
                        row |= predict(kernel, size, batch, launched, figures, Card())
                    yield row
