"""Settings of a benchmark."""

from dataclasses import dataclass
from typing import Annotated

import torch

from halonet.errors import UserError
from halonet.rules import Count, check_fields, one_of, within

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of all measurements of a run.

    Attributes:
        batch: Images at a time.
        repeats: Timed runs of each implementation, after two that are not timed.
        threads: PyTorch's threads, and our kernel's.
        dtype: A key of `DTYPES`.
        device: "cpu", or an accelerator as PyTorch names it.

    Raises:
        UserError: Values break rules (all of them are named), or the device is not here.
    """

    batch: Count = 4
    repeats: Annotated[int, within(least=2, most=1_000_000)] = 15  # two are the least that have quartiles
    threads: Annotated[int, within(least=1, most=65_536)]
    dtype: Annotated[str, one_of(*DTYPES)] = "float32"
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_fields(self)
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"--device {self.device!r} is not here: {str(error).splitlines()[0]}") from error

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as PyTorch has it."""
        return DTYPES[self.dtype]


def find_device(name: str) -> str:
    """Replace "auto" by the accelerator of this machine, or by "cpu" if it has none."""
    if name != "auto":
        return name
    return str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else "cpu"
