"""How many exponentials a GPU computes when nothing else holds it up: a Triton kernel that stays in its registers."""

import triton
import triton.language as tl
from torch import Tensor

NUMBERS = 2**22  # enough programs for any GPU
ROUNDS = 256  # so many exponentials for one read and one write
BLOCK = 1024  # eight numbers a thread: the units are deep, and each number waits for its own last result


@triton.jit
def _kernel(numbers, ROUNDS: tl.constexpr, BLOCK: tl.constexpr):  # noqa: N803 (constants, as Triton writes them)
    place = numbers + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    number = tl.load(place)
    for _ in range(ROUNDS):
        number = tl.exp2(-number)  # of negative numbers, so that none grows to infinity
    tl.store(place, number)


def exponentiate_in_registers(numbers: Tensor) -> None:
    """Replace each number x by 2^-x, `ROUNDS` times over.

    Args:
        numbers: fp32, a multiple of `BLOCK`; `NUMBERS` of them to measure.
    """
    _kernel[(numbers.numel() // BLOCK,)](numbers, ROUNDS=ROUNDS, BLOCK=BLOCK, enable_fp_fusion=True)  # pyright: ignore[reportArgumentType]
