"""Settings of a benchmark."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch

from halonet.errors import UserError, unknown_name
from halonet.rules import Count, check_fields, one_of, within

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of all measurements of a run; raises a `UserError` if they break rules or the device is not available.

    `repeats` are timed, after two runs that are not. `threads` are PyTorch's, and our kernel's.
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
            raise UserError(f"--device {self.device!r} is not available: {str(error).splitlines()[0]}") from error

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as PyTorch has it."""
        return DTYPES[self.dtype]


def find_device(name: str) -> str:
    """Replace "auto" by the accelerator of this machine, or by "cpu" if it has none."""
    if name != "auto":
        return name
    return str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else "cpu"


def check_names(kind: str, names: Iterable[str] | None, known: Iterable[str]) -> list[str]:
    """Return the names, or all that are known if there are none; raise a `UserError` if one is unknown."""
    names, known = list(names or ()), list(known)
    for name in names:
        if name not in known:
            raise UserError(unknown_name(kind, name, known))
    return names or known
