"""The backends under test. A new backend is one entry here; what it cannot do is said here and nowhere else."""

import os
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import halonet


@dataclass(frozen=True)
class Backend:
    """One implementation of the operator.

    Attributes:
        name: What `backend=` takes.
        plain_pytorch: Whether compile and export trace through it.
        differentiable_twice: Whether double backward and forward-mode derivatives work; others must refuse.
        device: Where it runs; tensors come from the CPU and go back there.
        dtypes: What it computes.
        keeps_centered_apart: Whether, with `centered`, NaN and infinity in a key or value reach only the queries that
            see it; in others they reach all queries of the blocks whose window holds it.
        adds_in_order: Whether two runs give the same bits without `torch.use_deterministic_algorithms(True)` too.
        interpreted: Whether Triton's interpreter runs it, a thousand times slower: it is spared repetitions.
    """

    name: str
    plain_pytorch: bool = False
    differentiable_twice: bool = False
    device: str = "cpu"
    dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
    keeps_centered_apart: bool = False
    adds_in_order: bool = True
    interpreted: bool = False

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
        given = (query, key, value, row_embedding, column_embedding)
        tensors = [None if each is None else each.to(self.device) for each in given]
        if not self.interpreted:
            return halonet.halo_attention(*tensors, backend=self.name, **options).to(query.device)
        with patch.dict(os.environ, {"TRITON_INTERPRET": "1"}):
            return halonet.halo_attention(*tensors, backend=self.name, **options)


BACKENDS = [
    Backend("reference", plain_pytorch=True, differentiable_twice=True, keeps_centered_apart=True, adds_in_order=False),
    Backend("composite", plain_pytorch=True),
    Backend("cpu", keeps_centered_apart=True),
    # The interpreter computes bf16 wrongly.
    Backend("triton", device="cuda")
    if torch.cuda.is_available()
    else Backend("triton", dtypes=(torch.float64, torch.float32, torch.float16), interpreted=True),
]
