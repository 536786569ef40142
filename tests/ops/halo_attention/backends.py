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
    """

    name: str
    plain_pytorch: bool = False
    differentiable_twice: bool = False

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        row_embedding: Tensor | None = None,
        column_embedding: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """Call the operator on this backend."""
        tensors = (query, key, value, row_embedding, column_embedding)
        return halonet.halo_attention(*tensors, backend=self.name, **options)


BACKENDS = [
    Backend("reference", plain_pytorch=True, differentiable_twice=True),
    Backend("composite", plain_pytorch=True),
    Backend("cpu"),
]
