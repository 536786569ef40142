"""What this machine could do at best, and how long an operator would then take.

    bound = matrix FLOPs / measured rate of a matrix product + exponentials / measured rate of exponentials

Counted are only pairs of a query and a key inside the image. Forward: two products of pairs by channels (scores, and
averages of the values), the product of all queries with both position tables, and one exponential for each pair.
Backward: five products of pairs by channels (the scores anew, the gradients of probabilities, values, queries and
keys), three with the tables (the logits anew, the gradients of queries and of tables), and one exponential again.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from halonet.benchmark.race import synchronize
from halonet.benchmark.settings import Settings
from halonet.benchmark.sizes import Size
from halonet.ops.halo_attention.geometry import Axis

SIDE_OF_PRODUCT = 2048
ATTEMPTS = 20  # of which the best counts: others may be using the machine


@dataclass(frozen=True)
class Work:
    """What one call has to compute.

    Attributes:
        flops: Floating-point operations of matrix products; a multiply-add is two.
        exponentials: Calls of exp.
    """

    flops: int
    exponentials: int


@dataclass(frozen=True)
class Peak:
    """Measured rates.

    Attributes:
        flops_per_second: Of one large matrix product.
        exponentials_per_second: Of `torch.exp` on a buffer that stays in the cache.
    """

    flops_per_second: float
    exponentials_per_second: float

    def milliseconds(self, work: Work) -> float:
        """Time that the work takes at the measured rates, nothing overlapping."""
        seconds = work.flops / self.flops_per_second + work.exponentials / self.exponentials_per_second
        return 1e3 * seconds


def visible_pairs(size: Size) -> int:
    """Pairs of a query and a key inside the image, of one image and one head."""
    geometry = size.geometry
    return _visible(geometry.rows, size.centered) * _visible(geometry.columns, size.centered)


def _visible(axis: Axis, centered: bool) -> int:
    pairs = 0
    for pixel in range(0, axis.size, axis.stride):
        first = pixel if centered else pixel - pixel % axis.block
        last = pixel if centered else first + axis.block - 1
        pairs += min(last + axis.halo, axis.size - 1) - max(first - axis.halo, 0) + 1
    return pairs


def count_work(size: Size, batch: int, training: bool) -> Work:
    """Count one forward pass, or one forward and backward pass."""
    geometry = size.geometry
    images = batch * size.heads
    pairs = images * visible_pairs(size)
    queries = images * geometry.rows.num_queries * geometry.columns.num_queries
    row_width, column_width = size.table_widths
    positions = 2 * queries * (geometry.rows.table_length * row_width + geometry.columns.table_length * column_width)
    scores, averages = 2 * pairs * size.query_channels, 2 * pairs * size.value_channels
    forward = Work(scores + averages + positions, pairs)
    if not training:
        return forward
    return Work(forward.flops + 3 * scores + 2 * averages + 3 * positions, 2 * pairs)


def measure_peak(settings: Settings) -> Peak:
    """Measure both rates with the settings' threads, dtype and device: the best attempt at each."""
    dtype, device = settings.torch_dtype, settings.device
    left, right = (torch.randn(SIDE_OF_PRODUCT, SIDE_OF_PRODUCT, dtype=dtype, device=device) for _ in range(2))
    product = torch.empty_like(left)
    # Half a megabyte with its result in fp32: the second-level caches of two cores. Accelerators need more to be busy.
    given = torch.randn(2**16 if device == "cpu" else 2**22, dtype=dtype, device=device)
    exponentials, loops = torch.empty_like(given), 20

    def exponentiate() -> None:
        for _ in range(loops):
            torch.exp(given, out=exponentials)

    seconds_of_product = _best(lambda: torch.mm(left, right, out=product), device)
    seconds_of_exponentials = _best(exponentiate, device)
    return Peak(2 * SIDE_OF_PRODUCT**3 / seconds_of_product, loops * given.numel() / seconds_of_exponentials)


def _best(run: Callable[[], object], device: str) -> float:
    seconds = []
    for _ in range(ATTEMPTS):
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)
