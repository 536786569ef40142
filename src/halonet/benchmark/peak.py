"""Peak rates of a machine, and the least time that an operator can take at these rates.

    on a CPU          bound = FLOPs / their rate + exponentials / their rate
    elsewhere         bound = the largest of FLOPs / their rate, exponentials / their rate, bytes / their rate

An accelerator has separate units for products, exponentials and memory, which work at the same time. Rates are
measured: of a large matrix product, of exponentials on cached numbers, and of a large copy, read and written.

Only pairs of a query and a key inside the image are counted. Forward: two products of pairs by channels (scores, and
averages of the values), the product of all queries with both position tables, and one exponential for each pair.
Backward: five products of pairs by channels (the scores anew, the gradients of probabilities, values, queries and
keys), three with the tables (the logits anew, the gradients of queries and of tables), and one exponential again.
Bytes forward: queries, keys and values read once, the output written once, and in training the logarithm of each
query's sum of exponentials, in at least fp32. Backward: all of these read once, the output's gradient read, and three
gradients written. The position tables are too small to count.
"""

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch

from halonet.benchmark.settings import Settings
from halonet.benchmark.sizes import Size
from halonet.benchmark.timing import calls_per_sample, time_calls
from halonet.errors import UserNote
from halonet.ops.attention.geometry import Axis

SIDE_OF_PRODUCT = 2048
SIDE_ON_ACCELERATORS = 8192  # a smaller product leaves a part of a large GPU idle
BYTES_OF_COPY = 2**29  # far beyond any cache
ATTEMPTS = 20  # the best counts, because others may be using the machine


@dataclass(frozen=True)
class Work:
    """Work of one call: FLOPs of matrix products (a multiply-add is two), calls of exp, bytes read and written."""

    flops: int
    exponentials: int
    bytes: int = 0


@dataclass(frozen=True)
class Peak:
    """Measured rates: of a large matrix product, of exponentials in the cache or in registers, and of a large copy.

    There are no bytes on a CPU, whose bound does not count them and lets nothing overlap.
    """

    flops_per_second: float
    exponentials_per_second: float
    bytes_per_second: float | None = None

    def milliseconds(self, work: Work) -> float:
        """Least time of the work at these rates; see the module's docstring."""
        products = work.flops / self.flops_per_second
        exponentials = work.exponentials / self.exponentials_per_second
        if self.bytes_per_second is None:
            return 1e3 * (products + exponentials)
        return 1e3 * max(products, exponentials, work.bytes / self.bytes_per_second)

    def __str__(self) -> str:
        rates = (
            f"peak: {self.flops_per_second / 1e9:.1f} GFLOP/s in a matrix product, "
            f"{self.exponentials_per_second / 1e9:.2f} G exponentials/s"
        )
        if self.bytes_per_second is None:
            return f"{rates}; bound = FLOPs / the one + exponentials / the other"
        return (
            f"{rates}, {self.bytes_per_second / 1e9:.0f} GB/s in a copy; "
            "bound = the largest of FLOPs, exponentials and bytes, each over its rate"
        )


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


def count_work(size: Size, batch: int, training: bool, dtype: torch.dtype = torch.float32) -> Work:
    """Count one forward pass, or one forward and backward pass, of tensors of a dtype."""
    geometry = size.geometry
    images = batch * size.heads
    pairs = images * visible_pairs(size)
    queries = images * geometry.rows.num_queries * geometry.columns.num_queries
    row_width, column_width = size.table_widths
    positions = 2 * queries * (geometry.rows.table_length * row_width + geometry.columns.table_length * column_width)
    scores, averages = 2 * pairs * size.query_channels, 2 * pairs * size.value_channels
    flops = scores + averages + positions
    key_pixels = images * geometry.rows.size * geometry.columns.size
    inputs = (queries + key_pixels) * size.query_channels + key_pixels * size.value_channels
    output = queries * size.value_channels
    if not training:
        return Work(flops, pairs, (inputs + output) * dtype.itemsize)
    log_sum = queries * max(dtype.itemsize, torch.float32.itemsize)
    forward_bytes = (inputs + output) * dtype.itemsize + log_sum
    gradients = (output + inputs) * dtype.itemsize
    return Work(flops + 3 * scores + 2 * averages + 3 * positions, 2 * pairs, 2 * forward_bytes + gradients)


def measure_peak(settings: Settings, side: int | None = None) -> Peak:
    """Measure each rate by its best attempt; a `side` of the matrices of None keeps the device busy."""
    dtype, device = settings.torch_dtype, settings.device
    if side is None:
        side = SIDE_OF_PRODUCT if device == "cpu" else SIDE_ON_ACCELERATORS
    left, right = (torch.randn(side, side, dtype=dtype, device=device) for _ in range(2))
    product = torch.empty_like(left)
    flops_per_second = 2 * side**3 / _best(lambda: torch.mm(left, right, out=product), device)
    exponentials_per_second = _measure_exponentials(dtype, device)
    if device == "cpu":
        return Peak(flops_per_second, exponentials_per_second)
    there = torch.empty(BYTES_OF_COPY, dtype=torch.uint8, device=device)
    copied = torch.empty_like(there)
    bytes_per_second = 2 * BYTES_OF_COPY / _best(lambda: copied.copy_(there), device)
    return Peak(flops_per_second, exponentials_per_second, bytes_per_second)


def _runs_triton(device: str) -> bool:
    return torch.device(device).type == "cuda" and importlib.util.find_spec("triton") is not None


def _measure_exponentials(dtype: torch.dtype, device: str) -> float:
    if _runs_triton(device):
        # A GPU takes exponentials faster than `torch.exp` can read and write them, even in its caches.
        registers = importlib.import_module("halonet.benchmark.triton.exponentials")
        numbers = torch.randn(registers.NUMBERS, device=device)
        count = registers.ROUNDS * registers.NUMBERS
        try:
            return count / _best(lambda: registers.exponentiate_in_registers(numbers), device)
        except Exception as error:  # Triton wants a C compiler, among others
            note = f"exponentials are timed by torch.exp, which is slower: Triton fails with {type(error).__name__}"
            warnings.warn(f"{note}: {error}", UserNote, stacklevel=2)
    # With the result half a megabyte in fp32, for the second-level caches of two cores. Accelerators need more.
    given = torch.randn(2**16 if device == "cpu" else 2**22, dtype=dtype, device=device)
    exponentials, loops = torch.empty_like(given), 20

    def exponentiate() -> None:
        for _ in range(loops):
            torch.exp(given, out=exponentials)

    return loops * given.numel() / _best(exponentiate, device)


def _best(run: Callable[[], object], device: str) -> float:
    """Seconds of the fastest attempt."""
    calls = calls_per_sample(run, device)
    return min(time_calls(run, calls, device) for _ in range(ATTEMPTS)) / 1e3
