"""A Triton kernel that computes exponentials in registers, to measure their peak rate."""

import triton
import triton.language as tl
from torch import Tensor

NUMBERS = 2**22  # enough programs for any GPU
ROUNDS = 256  # exponentials for each number read and written
BLOCK = 1024  # eight numbers a thread, because each exponential waits for the one before


@triton.jit
def _kernel(numbers, ROUNDS: tl.constexpr, BLOCK: tl.constexpr):  # noqa: N803 (constants, as Triton writes them)
    addresses = numbers + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    number = tl.load(addresses)
    for _ in range(ROUNDS):
        number = tl.exp2(-number)  # negated, so that none grows to infinity
    tl.store(addresses, number)


def exponentiate_in_registers(numbers: Tensor) -> None:
    """Replace each number x by 2^-x, `ROUNDS` times; fp32, a multiple of `BLOCK`, and `NUMBERS` of them to measure."""
    _kernel[(numbers.numel() // BLOCK,)](numbers, ROUNDS=ROUNDS, BLOCK=BLOCK, enable_fp_fusion=True)  # pyright: ignore[reportArgumentType]
