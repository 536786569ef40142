"""Find the fastest configurations of the Triton kernels on this GPU: `halonet benchmark tune`.

Candidates run in turns, after checking that they agree with the table's configuration. The result is a proposal for
`ops/attention/triton/configurations.py`: configurations are never chosen at run time, which would change bits
from day to day.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from halonet.benchmark.peers import disagreement, make_inputs
from halonet.benchmark.record import reason_of
from halonet.benchmark.settings import Settings
from halonet.benchmark.sizes import Size
from halonet.benchmark.timing import time_in_turns
from halonet.errors import UserError
from halonet.ops.attention.backends import BACKENDS
from halonet.ops.attention.registration import Inputs
from halonet.ops.attention.triton.configurations import (
    Cell,
    Configuration,
    architecture_of,
    cell_for,
    configuration_for,
    fit,
)
from halonet.ops.attention.triton.launch import Launch, forward_launch, launch_for_keys, launch_for_queries
from halonet.ops.attention.triton.problem import make_problem


@dataclass(frozen=True)
class Trial:
    """A candidate for a cell of the table, `current` if it is the table's configuration.

    Milliseconds are the lower quartile, median and upper quartile; where it did not run, there is a reason instead.
    """

    cell: Cell
    configuration: Configuration
    milliseconds: list[float] | None
    reason: str | None
    current: bool


def candidates(cell: Cell, stages: Sequence[int] = (1, 2)) -> list[Configuration]:
    """List configurations that leave a thread a few scores.

    These are at most 64, or 16 in fp32, whose exact products use no matrix unit. `stages` are the numbers of tiles
    under way at once.
    """
    tiles = [(8, 8), (4, 8), (4, 4)] if cell.kernel == "keys" else [(4, 16), (2, 16), (1, 16)]
    widest = cell.channels == 256
    counts = [16] if cell.queries == 16 else [64, 32, *([16] if widest else [])]
    least = 1 if cell.itemsize == 4 else 2 if widest else 8 if cell.channels < 64 else 4
    most = 64 if cell.itemsize == 2 else 16
    return [
        Configuration(queries, rows, columns, warps, stage)
        for queries, (rows, columns), warps, stage in itertools.product(counts, tiles, (1, 2, 4, 8), stages)
        if least * 32 * warps <= queries * rows * columns <= most * 32 * warps
    ]


def tune(size: Size, settings: Settings, tried: Callable[[Cell], list[Configuration]] | None = None) -> Iterator[Trial]:
    """Time the candidates of the three kernels at one size, with tables in fp32, as parameters are under autocast.

    Yields one trial for each, kernel by kernel; raises a `UserError` if the Triton backend cannot run here. `tried`
    lists the candidates for a cell of the table; None takes `candidates`.
    """
    given = make_inputs(size, settings)
    tables = [each.detach().float() for each in given.tables]
    inputs = Inputs(given.query.detach(), given.key.detach(), given.value.detach(), *tables)
    reason = BACKENDS["triton"].unsupported_reason(*inputs[:3], size.geometry)
    if reason:
        raise UserError(f"there is nothing to tune here: {reason}")
    scale = size.query_channels**-0.5
    problem = make_problem(inputs, size.geometry, scale)
    for kernel, make_run in _kernels(inputs, size, scale).items():
        cell = cell_for(kernel, problem, inputs.query.dtype)
        current = configuration_for(kernel, problem, inputs.query.dtype, architecture_of(inputs.query.device))
        expected = make_run(current).compute()
        every = list(dict.fromkeys([current, *(fit(each, problem) for each in (tried or candidates)(cell))]))
        reasons = {each: _failure(make_run, each, expected) for each in every}
        runs = {str(each): make_run(each).launch.run for each in every if reasons[each] is None}
        times = time_in_turns(runs, settings, device_time=True)
        for each in every:
            yield Trial(cell, each, times.get(str(each)), reasons[each], each == current)


class KernelRun(NamedTuple):
    """A kernel in one configuration, with the tensors that it fills; its caller sums `parts` over their first axis."""

    launch: Launch
    filled: list[Tensor]
    parts: list[Tensor]

    def compute(self) -> list[Tensor]:
        """Run it once, on memory filled with NaN, and return the results."""
        for each in (*self.filled, *self.parts):
            each.fill_(math.nan)
        self.launch.run()
        return [*(each.clone() for each in self.filled), *(each.sum(0) for each in self.parts)]


def _failure(
    make_run: Callable[[Configuration], KernelRun], configuration: Configuration, expected: list[Tensor]
) -> str | None:
    """Run a candidate once; say why it is left out, or return None."""
    try:
        wrong = [disagreement(*pair) for pair in zip(make_run(configuration).compute(), expected, strict=True)]
    except Exception as error:  # such as a kernel that does not fit on the chip
        return reason_of(error)
    return next(filter(None, wrong), None)


def _kernels(inputs: Inputs, size: Size, scale: float) -> dict[str, Callable[[Configuration], KernelRun]]:
    """Make a run of each kernel from a configuration."""
    output = inputs.query.new_empty(*inputs.query.shape[:4], inputs.value.shape[4])
    log_sum = inputs.query.new_empty(inputs.query.shape[:4], dtype=torch.float32)
    call = (size.geometry, scale)
    forward_launch(inputs, *call, output, log_sum).run()
    grad_query, grad_key, grad_value = (torch.empty_like(each) for each in inputs[:3])
    gradient = torch.randn_like(output)
    first, _, delta = launch_for_queries(gradient, inputs, output, log_sum, *call, grad_query)
    first.run()
    again = torch.empty_like(output), torch.empty_like(log_sum)

    def forward(configuration: Configuration) -> KernelRun:
        return KernelRun(forward_launch(inputs, *call, *again, configuration=configuration), list(again), [])

    def queries(configuration: Configuration) -> KernelRun:
        launch, parts, own = launch_for_queries(
            gradient, inputs, output, log_sum, *call, grad_query, configuration=configuration
        )
        return KernelRun(launch, [grad_query, own], parts)

    def keys(configuration: Configuration) -> KernelRun:
        launch = launch_for_keys(
            gradient, inputs, log_sum, delta, *call, grad_key, grad_value, configuration=configuration
        )
        return KernelRun(launch, [grad_key, grad_value], [])

    return {"forward": forward, "queries": queries, "keys": keys}


def propose(trials: list[Trial]) -> list[str]:
    """For each cell, name the fastest configuration, its gain over the table's, and what did not run."""
    lines = []
    for cell, group in itertools.groupby(trials, key=lambda trial: trial.cell):
        every = list(group)
        ran = [(trial.milliseconds[1], trial) for trial in every if trial.milliseconds is not None]
        now = next((time for time, trial in ran if trial.current), None)
        best_time, best = min(ran, key=lambda pair: pair[0])
        gain = "" if now is None else f", {now / best_time:.2f} x the table's speed"
        lines.append(f"{cell}: {tuple(best.configuration)} takes {best_time:.3f} ms{gain}")
        if len(ran) < len(every):
            lines.append(f"  {len(every) - len(ran)} of {len(every)} candidates did not run or gave other numbers")
    return lines
