"""What all runs of one benchmark have in common."""

from dataclasses import dataclass

import torch

from halonet.errors import UserError, unknown_name

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How everything is run.

    Attributes:
        batch: Images at a time.
        repeats: Timed runs of each contestant, after two that are not timed.
        threads: PyTorch's threads, and our kernel's.
        dtype: A key of `DTYPES`.
        device: "cpu", or an accelerator as PyTorch names it.

    Raises:
        UserError: If a number is too small or a name unknown.
    """

    batch: int = 4
    repeats: int = 15
    threads: int
    dtype: str = "float32"
    device: str = "cpu"

    def __post_init__(self) -> None:
        # Two repeats are the least that have quartiles.
        for name, least in (("batch", 1), ("repeats", 2), ("threads", 1)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} is {getattr(self, name)}; it must be at least {least}")
        if self.dtype not in DTYPES:
            raise UserError(unknown_name("dtype", self.dtype, DTYPES))
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"--device {self.device!r} is not here: {str(error).splitlines()[0]}") from error

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as PyTorch's object."""
        return DTYPES[self.dtype]


def find_device(name: str) -> str:
    """Turn "auto" into the accelerator of this machine, or "cpu" without one; other names stay."""
    if name != "auto":
        return name
    return str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else "cpu"
