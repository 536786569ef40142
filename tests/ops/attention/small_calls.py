"""Valid calls on a small image, whose arguments tests replace."""

import re
from typing import Any

import torch
from torch import Tensor

import halonet


def mentions(*words: object) -> str:
    """A pattern that wants every word somewhere in the message, in any order; numbers must stand alone."""
    wanted = []
    for word in words:
        text = re.escape(str(word))
        wanted.append(rf"(?=.*(?<![\d.]){text}(?!\d))" if isinstance(word, int) else f"(?=.*{text})")
    return "(?is)" + "".join(wanted)


def zeros(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    return torch.zeros(shape, dtype=dtype, device=device)


def attend(**changes: Any) -> Tensor:
    """Call the operator on a 6x5 image, 2 heads, d_qk 4, d_v 3, with some arguments replaced."""
    arguments: dict[str, Any] = {
        "query": zeros(1, 6, 5, 2, 4),
        "key": zeros(1, 6, 5, 2, 4),
        "value": zeros(1, 6, 5, 2, 3),
        "row_embedding": zeros(5, 2),
        "column_embedding": zeros(5, 2),
        "block_size": 2,
        "halo_size": 1,
    }
    return halonet.halo_attention(**(arguments | changes))


def weights(**changes: Any) -> tuple[Tensor, Tensor]:
    """Call `attention_weights` on the same image, with some arguments replaced."""
    arguments: dict[str, Any] = {
        "query": zeros(1, 6, 5, 2, 4),
        "key": zeros(1, 6, 5, 2, 4),
        "row_embedding": zeros(5, 2),
        "column_embedding": zeros(5, 2),
        "positions": torch.tensor([[0, 0], [5, 4]]),
        "block_size": 2,
        "halo_size": 1,
    }
    return halonet.attention_weights(**(arguments | changes))
