"""The backends under test. A new backend is one entry here; what it cannot do is said here and nowhere else."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

import halonet


@dataclass(frozen=True)
class Backend:
    """One implementation of the operator.

    Attributes:
        name: What `backend=` takes.
        plain_pytorch: Whether compile and export trace through it.
        differentiable_twice: Whether double backward and forward-mode derivatives work; others must refuse.
        lacks_dtypes: Names of the dtypes that it refuses.
    """

    name: str
    plain_pytorch: bool = False
    differentiable_twice: bool = False
    lacks_dtypes: frozenset[str] = frozenset()

    def attend(self, *tensors: Tensor | None, **options: Any) -> Tensor:
        return halonet.halo_attention(*tensors, backend=self.name, **options)


BACKENDS = [
    Backend("reference", plain_pytorch=True, differentiable_twice=True),
    Backend("composite", plain_pytorch=True),
]
