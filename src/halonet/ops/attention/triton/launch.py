"""From a call to kernels that are ready to go, each in the configuration of the table unless another is given."""

from functools import cache
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor
from triton.runtime.jit import JITFunction

from halonet.errors import UserError
from halonet.ops.attention.geometry import Axis, Geometry, power_of_2
from halonet.ops.attention.registration import Inputs
from halonet.ops.attention.triton.backward import gradient_of_keys, gradient_of_queries
from halonet.ops.attention.triton.configurations import (
    Configuration,
    architecture_of,
    configuration_for,
)
from halonet.ops.attention.triton.forward import attention_forward
from halonet.ops.attention.triton.problem import Extent, Image, Problem, Tile, make_problem

# Programs, at most, that leave a part of the tables' gradients: enough to fill any GPU, few enough to add up.
MOST_PARTS = 2048
# Programs and tiles are counted in 32 bits, with room for the last program's share beyond the last tile.
MOST_TILES = 2**31 - 2**21


class Launch(NamedTuple):
    """One kernel, ready to go: what is compiled, for what arguments, how often."""

    kernel: Any
    programs: int
    arguments: dict[str, Any]
    configuration: Configuration

    def run(self) -> None:
        """Enqueue it."""
        self.kernel[(self.programs,)](**self.compiled_arguments(), **self.options)

    @property
    def options(self) -> dict[str, Any]:
        """What the compiler is told; of multiply-adds too, for Triton 3.9 warns of its changing default."""
        warps, stages = self.configuration.num_warps, self.configuration.num_stages
        return {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}

    def compiled_arguments(self) -> dict[str, Any]:
        """The arguments as the compiler wants them: Triton 3.6 makes no constants of what lies inside a tuple."""
        if not isinstance(self.kernel, JITFunction):  # the interpreter makes do, and knows no constants
            return self.arguments
        constants = {name: _constants(self.arguments[name]) for name in ("problem", "tile")}
        return self.arguments | constants


@cache
def _constants(numbers: Any) -> Any:
    """Wrap what lies in a named tuple, and in those inside it, as constants."""
    return type(numbers)(*(tl.constexpr(_constants(each) if isinstance(each, tuple) else each) for each in numbers))


def forward_launch(
    inputs: Inputs,
    geometry: Geometry,
    scale: float,
    output: Tensor,
    log_sum: Tensor | None,
    configuration: Configuration | None = None,
) -> Launch:
    """The forward kernel, to fill `output` and, if given, `log_sum`."""
    problem = make_problem(inputs, geometry, scale, output)
    configuration = configuration or _choose("forward", problem, inputs.query)
    parts = _parts(problem, configuration)
    return Launch(
        attention_forward,
        _count(inputs, geometry, parts),
        {
            **_tensors(inputs),
            "output": _image(output),
            "log_sum": output if log_sum is None else log_sum,  # without, never written
            **_extents(geometry),
            **_compiled_for(problem, configuration),
            "parts": parts,
            "save": log_sum is not None,
        },
        configuration,
    )


def launch_for_queries(
    grad_output: Tensor,
    inputs: Inputs,
    output: Tensor,
    log_sum: Tensor,
    geometry: Geometry,
    scale: float,
    grad_query: Tensor,
    configuration: Configuration | None = None,
) -> tuple[Launch, list[Tensor], Tensor]:
    """The first kernel of the backward, the parts of the tables' gradients and the `delta` that it will fill."""
    problem = make_problem(inputs, geometry, scale, output, grad_output, grad_query)
    configuration = configuration or _choose("queries", problem, inputs.query)
    parts = _parts(problem, configuration)
    count = _count(inputs, geometry, parts)
    items = -(-count // MOST_PARTS) if problem.has_tables else 1
    programs = -(-count // items)
    gradients = [
        log_sum.new_zeros(1) if table is None else log_sum.new_empty(programs, *table.shape) for table in inputs[3:]
    ]
    delta = torch.empty_like(log_sum)
    arguments = {
        **_tensors(inputs),
        "output": _image(output),
        "log_sum": log_sum,
        "grad_output": _image(grad_output),
        "grad_query": _image(grad_query),
        "grad_row_table": gradients[0],
        "grad_column_table": gradients[1],
        "delta": delta,
        **_extents(geometry),
        "count": count,
        "items": items,
        **_compiled_for(problem, configuration),
        "parts": parts,
    }
    return Launch(gradient_of_queries, programs, arguments, configuration), gradients, delta


def launch_for_keys(
    grad_output: Tensor,
    inputs: Inputs,
    log_sum: Tensor,
    delta: Tensor,
    geometry: Geometry,
    scale: float,
    grad_key: Tensor,
    grad_value: Tensor,
    configuration: Configuration | None = None,
) -> Launch:
    """The second kernel of the backward; it reads the first one's `delta`."""
    problem = make_problem(inputs, geometry, scale, grad_output, grad_key, grad_value)
    configuration = configuration or _choose("keys", problem, inputs.query)
    row_shift, row_tiles = _key_tiles(geometry.rows, configuration.key_rows)
    column_shift, column_tiles = _key_tiles(geometry.columns, configuration.key_columns)
    return Launch(
        gradient_of_keys,
        inputs.key.shape[0] * inputs.key.shape[3] * row_tiles * column_tiles,
        {
            **_tensors(inputs),
            "log_sum": log_sum,
            "delta": delta,
            "grad_output": _image(grad_output),
            "grad_key": _image(grad_key),
            "grad_value": _image(grad_value),
            **_extents(geometry),
            "row_shift": row_shift,
            "column_shift": column_shift,
            "row_tiles": row_tiles,
            "column_tiles": column_tiles,
            **_compiled_for(problem, configuration, windows=False),
            "parts": _parts(problem, configuration),
        },
        configuration,
    )


def _choose(kernel: str, problem: Problem, query: Tensor) -> Configuration:
    return configuration_for(kernel, problem, query.dtype, architecture_of(query.device))


def _tensors(inputs: Inputs) -> dict[str, Any]:
    query, key, value, row_embedding, column_embedding = inputs
    return {
        "query": _image(query),
        "key": _image(key),
        "value": _image(value),
        "row_table": query if row_embedding is None else row_embedding.contiguous(),  # without, never read
        "column_table": query if column_embedding is None else column_embedding.contiguous(),
    }


def _image(tensor: Tensor) -> Image:
    return Image(tensor, tensor.stride())


def _extents(geometry: Geometry) -> dict[str, Any]:
    rows, columns = (Extent(axis.size, axis.num_queries, axis.num_blocks) for axis in geometry[:2])
    return {"rows": rows, "columns": columns}


@cache
def _compiled_for(problem: Problem, configuration: Configuration, windows: bool = True) -> dict[str, Any]:
    """Constants of a kernel whose slots are for all rows and columns of a window, or for those of one key tile."""
    queries, key_rows, key_columns, *_ = configuration
    slots = max(key_rows, key_columns)
    if windows:
        sides = ((problem.rows.window, key_rows), (problem.columns.window, key_columns))
        slots = max(-(-window // side) * side for window, side in sides)
    tiles_across = -(-problem.columns.window // key_columns)
    return {"problem": problem, "tile": Tile(queries, key_rows, key_columns, power_of_2(slots), tiles_across)}


def _parts(problem: Problem, configuration: Configuration) -> int:
    """Tiles of queries in a block."""
    return -(-problem.rows.max_queries * problem.columns.max_queries // configuration.queries)


def _count(inputs: Inputs, geometry: Geometry, parts: int) -> int:
    """Tiles of queries in all."""
    batch, _, _, heads, _ = inputs.query.shape
    count = batch * heads * geometry.rows.num_blocks * geometry.columns.num_blocks * parts
    if count > MOST_TILES:
        raise UserError(
            f"the batch makes {count} tiles of queries, and the Triton kernels count up to {MOST_TILES}; "
            "cut the batch into parts"
        )
    return count


@cache
def _key_tiles(axis: Axis, size: int) -> tuple[int, int]:
    """How far to shift tiles of keys against the image, and how many there are: what meets the fewest windows."""

    def meetings(shift: int) -> int:
        windows = (
            (max(block * axis.block - axis.halo, 0), min(block * axis.block + axis.block + axis.halo, axis.size))
            for block in range(axis.num_blocks)
        )
        return sum((after - 1 + shift) // size - (first + shift) // size + 1 for first, after in windows)

    shift = min((0, axis.block // 2 % size), key=meetings)
    return shift, -(-(axis.size + shift) // size)
