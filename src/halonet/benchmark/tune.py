"""Which cut of the Triton kernels is the fastest on this GPU: `halonet benchmark tune`.

Candidates run in turns, after they were checked to compute what the table's configuration computes. What comes out is
a proposal for `ops/attention/triton/configurations.py`: kernels are never chosen at run time, for that would
change bits from day to day.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from halonet.benchmark.contestants import disagreement, make_inputs
from halonet.benchmark.race import race
from halonet.benchmark.settings import Settings
from halonet.benchmark.sizes import Size
from halonet.errors import UserError
from halonet.ops.attention.backends import BACKENDS
from halonet.ops.attention.registration import Inputs

if TYPE_CHECKING:
    from halonet.ops.attention.triton.configurations import Cell, Configuration
    from halonet.ops.attention.triton.launch import Launch


@dataclass(frozen=True)
class Trial:
    """One candidate.

    Attributes:
        cell: The row of the table that it stands for; its kernel is "forward", "queries" or "keys".
        configuration: How it was cut.
        milliseconds: Lower quartile, median and upper quartile; None where it did not run.
        reason: Why it did not run, or None.
        current: Whether it is the table's.
    """

    cell: "Cell"
    configuration: "Configuration"
    milliseconds: list[float] | None
    reason: str | None
    current: bool


def candidates(cell: "Cell", stages: Sequence[int] = (1, 2)) -> list["Configuration"]:
    """List what is tried for a row of the table.

    Args:
        cell: The row.
        stages: Numbers of tiles under way at once.

    Returns:
        Cuts that leave a thread a few scores, at most 64, or 16 in fp32, whose exact products take no matrix unit.
    """
    from halonet.ops.attention.triton.configurations import Configuration

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


def tune(
    size: Size, settings: Settings, tried: "Callable[[Cell], list[Configuration]] | None" = None
) -> Iterator[Trial]:
    """Try the candidates of the three kernels at one size.

    Args:
        size: The size.
        settings: How it is run; tables are fp32, as parameters are under autocast.
        tried: Lists the candidates for a row of the table; None takes `candidates`.

    Yields:
        One trial for each, kernel by kernel.

    Raises:
        UserError: If the Triton backend cannot run here.
    """
    given = make_inputs(size, settings)
    tables = [each.detach().float() for each in given.tables]
    inputs = Inputs(given.query.detach(), given.key.detach(), given.value.detach(), *tables)
    reason = BACKENDS["triton"].unsupported_reason(*inputs[:3], size.geometry)
    if reason:
        raise UserError(f"there is nothing to tune here: {reason}")
    from halonet.ops.attention.triton.configurations import architecture_of, cell_for, configuration_for, fit
    from halonet.ops.attention.triton.problem import make_problem

    scale = size.query_channels**-0.5
    problem = make_problem(inputs, size.geometry, scale)
    for kernel, cut in _kernels(inputs, size, scale).items():
        cell = cell_for(kernel, problem, inputs.query.dtype)
        current = configuration_for(kernel, problem, inputs.query.dtype, architecture_of(inputs.query.device))
        expected = cut(current).compute()
        every = list(dict.fromkeys([current, *(fit(each, problem) for each in (tried or candidates)(cell))]))
        reasons = {each: _refusal(cut, each, expected) for each in every}
        runs = {str(each): cut(each).launch.run for each in every if reasons[each] is None}
        times = race(runs, settings, of_device=True)
        for each in every:
            yield Trial(cell, each, times.get(str(each)), reasons[each], each == current)


class Cut(NamedTuple):
    """A kernel in one configuration.

    Attributes:
        launch: What runs it.
        filled: What it fills.
        parts: What it fills and its caller sums over the first axis.
    """

    launch: "Launch"
    filled: list[Tensor]
    parts: list[Tensor]

    def compute(self) -> list[Tensor]:
        """Run it once, on memory in which nothing is left of another's run."""
        for each in (*self.filled, *self.parts):
            each.fill_(math.nan)
        self.launch.run()
        return [*(each.clone() for each in self.filled), *(each.sum(0) for each in self.parts)]


def _refusal(
    cut: "Callable[[Configuration], Cut]", configuration: "Configuration", expected: list[Tensor]
) -> str | None:
    """Run a candidate once, and say why it cannot take part, or None."""
    try:
        wrong = [disagreement(*pair) for pair in zip(cut(configuration).compute(), expected, strict=True)]
    except Exception as error:  # what does not fit on the chip is the reason that is told
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"
    return next(filter(None, wrong), None)


def _kernels(inputs: Inputs, size: Size, scale: float) -> dict[str, "Callable[[Configuration], Cut]"]:
    """How each kernel is cut."""
    from halonet.ops.attention.triton.launch import forward_launch, launch_for_keys, launch_for_queries

    output = inputs.query.new_empty(*inputs.query.shape[:4], inputs.value.shape[4])
    log_sum = inputs.query.new_empty(inputs.query.shape[:4], dtype=torch.float32)
    call = (size.geometry, scale)
    forward_launch(inputs, *call, output, log_sum).run()
    grad_query, grad_key, grad_value = (torch.empty_like(each) for each in inputs[:3])
    gradient = torch.randn_like(output)
    first, _, delta = launch_for_queries(gradient, inputs, output, log_sum, *call, grad_query)
    first.run()
    again = torch.empty_like(output), torch.empty_like(log_sum)

    def forward(configuration: "Configuration") -> Cut:
        return Cut(forward_launch(inputs, *call, *again, configuration=configuration), list(again), [])

    def queries(configuration: "Configuration") -> Cut:
        launch, parts, own = launch_for_queries(
            gradient, inputs, output, log_sum, *call, grad_query, configuration=configuration
        )
        return Cut(launch, [grad_query, own], parts)

    def keys(configuration: "Configuration") -> Cut:
        launch = launch_for_keys(
            gradient, inputs, log_sum, delta, *call, grad_key, grad_value, configuration=configuration
        )
        return Cut(launch, [grad_key, grad_value], [])

    return {"forward": forward, "queries": queries, "keys": keys}


def propose(trials: list[Trial]) -> list[str]:
    """Say, row by row, what the table has, what was fastest, and what did not run."""
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
