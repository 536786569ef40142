"""Which cut of the Triton kernels is the fastest on this GPU: `halonet benchmark tune`.

Candidates run in turns, after they were checked to compute what the table's configuration computes. What comes out is
a proposal for `ops/halo_attention/triton/configurations.py`: kernels are never chosen at run time, for that would
change bits from day to day.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from halonet.benchmark.contestants import disagreement, make_inputs
from halonet.benchmark.race import race
from halonet.benchmark.settings import Settings
from halonet.benchmark.sizes import Size
from halonet.errors import UserError
from halonet.ops.halo_attention.api import BACKENDS
from halonet.ops.halo_attention.registration import Inputs

if TYPE_CHECKING:
    from halonet.ops.halo_attention.triton.configurations import Configuration
    from halonet.ops.halo_attention.triton.launch import Launch


@dataclass(frozen=True)
class Trial:
    """One candidate.

    Attributes:
        kernel: "forward", "queries" or "keys".
        configuration: How it was cut.
        milliseconds: Lower quartile, median and upper quartile; None where it did not run.
        reason: Why it did not run, or None.
        current: Whether it is the table's.
    """

    kernel: str
    configuration: "Configuration"
    milliseconds: list[float] | None
    reason: str | None
    current: bool


def candidates(kernel: str, queries: int) -> list["Configuration"]:
    """List what is tried for a kernel and blocks of so many queries."""
    from halonet.ops.halo_attention.triton.configurations import Configuration

    if kernel == "keys":
        tiles = [(8, 8), (4, 8), (4, 16)]
    else:
        tiles = [(1, 16), (2, 16), (4, 16), (8, 16), (4, 8)]
    at_once = [each for each in (16, 32, 64) if each <= max(16, queries)]
    every = itertools.product(at_once, tiles, (1, 2, 4, 8), (1, 2, 3))
    return [
        Configuration(count, *tile, warps, stages) for count, tile, warps, stages in every if 16 * warps <= 4 * count
    ]


def tune(
    size: Size, settings: Settings, tried: "Callable[[str, int], list[Configuration]] | None" = None
) -> Iterator[Trial]:
    """Try the candidates of the three kernels at one size.

    Args:
        size: The size.
        settings: How it is run; tables are fp32, as parameters are under autocast.
        tried: Lists the candidates of a kernel; None takes `candidates`.

    Yields:
        One trial for each, kernel by kernel.

    Raises:
        UserError: If the Triton backend cannot run here.
    """
    given = make_inputs(size, settings)
    tables = [each.detach().float() for each in given.tables]
    inputs = Inputs(given.query.detach(), given.key.detach(), given.value.detach(), *tables)
    reason = BACKENDS["triton"].refusal(*inputs[:3], size.geometry)
    if reason:
        raise UserError(f"there is nothing to tune here: {reason}")
    from halonet.ops.halo_attention.triton.configurations import configuration_for
    from halonet.ops.halo_attention.triton.problem import make_problem

    scale = size.query_channels**-0.5
    problem = make_problem(inputs, size.geometry, scale)
    queries = problem.rows.max_queries * problem.columns.max_queries
    for kernel, (launch, results) in _kernels(inputs, size, scale).items():
        current = configuration_for(kernel, problem, inputs.query.dtype)
        launch(current).run()
        expected = [each.clone() for each in results]
        every = list(dict.fromkeys([current, *(tried or candidates)(kernel, queries)]))
        reasons = {each: _refusal(launch, each, results, expected) for each in every}
        times = race({str(each): launch(each).run for each in every if reasons[each] is None}, settings)
        for each in every:
            yield Trial(kernel, each, times.get(str(each)), reasons[each], each == current)


def _refusal(
    launch: "Callable[[Configuration], Launch]",
    configuration: "Configuration",
    results: list[Tensor],
    expected: list[Tensor],
) -> str | None:
    """Run a candidate once, and say why it cannot take part, or None."""
    try:
        launch(configuration).run()
        wrong = [disagreement(*pair) for pair in zip(results, expected, strict=True)]
    except Exception as error:  # what does not fit on the chip is the reason that is told
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"
    return next(filter(None, wrong), None)


def _kernels(
    inputs: Inputs, size: Size, scale: float
) -> dict[str, tuple[Callable[["Configuration"], "Launch"], list[Tensor]]]:
    """How each kernel is launched in a given configuration, and what it fills."""
    from halonet.ops.halo_attention.triton.launch import forward_launch, launch_for_keys, launch_for_queries

    output = inputs.query.new_empty(*inputs.query.shape[:4], inputs.value.shape[4])
    log_sum = inputs.query.new_empty(inputs.query.shape[:4], dtype=torch.float32)
    call = (size.geometry, scale)
    forward_launch(inputs, *call, output, log_sum).run()
    grad_query, grad_key, grad_value = (torch.empty_like(each) for each in inputs[:3])
    gradient = torch.randn_like(output)
    queries, _, delta = launch_for_queries(gradient, inputs, output, log_sum, *call, grad_query)
    queries.run()
    again = torch.empty_like(output), torch.empty_like(log_sum)
    return {
        "forward": (lambda cut: forward_launch(inputs, *call, *again, configuration=cut), list(again)),
        "queries": (
            lambda cut: launch_for_queries(gradient, inputs, output, log_sum, *call, grad_query, configuration=cut)[0],
            [grad_query],
        ),
        "keys": (
            lambda cut: launch_for_keys(
                gradient, inputs, log_sum, delta, *call, grad_key, grad_value, configuration=cut
            ),
            [grad_key, grad_value],
        ),
    }


def propose(trials: list[Trial]) -> list[str]:
    """Say, kernel by kernel, what the table has, what was fastest, and what did not run."""
    lines = []
    for kernel, group in itertools.groupby(trials, key=lambda trial: trial.kernel):
        every = list(group)
        ran = [(trial.milliseconds[1], trial) for trial in every if trial.milliseconds is not None]
        now = next((time for time, trial in ran if trial.current), None)
        best_time, best = min(ran, key=lambda pair: pair[0])
        gain = "" if now is None else f", {now / best_time:.2f} x the table's speed"
        lines.append(f"{kernel}: {best.configuration} takes {best_time:.3f} ms{gain}")
        if len(ran) < len(every):
            lines.append(f"  {len(every) - len(ran)} of {len(every)} candidates did not run or gave other numbers")
    return lines
