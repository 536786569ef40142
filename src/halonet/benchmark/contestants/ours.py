"""Our backends."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from halonet.benchmark.contestants.entry import Contestant, Entry, Inputs
from halonet.benchmark.settings import Settings
from halonet.benchmark.sizes import Size
from halonet.ops import halo_attention
from halonet.ops.halo_attention.api import BACKENDS
from halonet.ops.halo_attention.geometry import make_geometry


def attend(inputs: Inputs, backend: str = "auto", *, tables: Sequence[Tensor] | None = None, **changes: Any) -> Tensor:
    """Compute the size's attention on a backend of ours.

    Args:
        inputs: The size and its numbers.
        backend: As in `halonet.halo_attention`.
        tables: Instead of those of the inputs; an empty sequence for none.
        **changes: Options of `halonet.halo_attention` that the peer compared with has otherwise.

    Returns:
        [batch, query_rows, query_columns, heads, d_v].
    """
    tensors = (inputs.query, inputs.key, inputs.value, *(inputs.tables if tables is None else tables))
    return halo_attention(*tensors, backend=backend, **inputs.size.options, **changes)


def prepare_ours(backend: str, oracle: str) -> Callable[[Inputs], Entry]:
    """Make an entry of one backend; `oracle` is the backend it must agree with."""

    def prepare(inputs: Inputs) -> Entry:
        leaves = [inputs.query, inputs.key, inputs.value, *inputs.tables]
        return Entry(lambda: attend(inputs, backend), leaves, lambda: (attend(inputs, backend), attend(inputs, oracle)))

    return prepare


def _refusal(backend: str, device: str) -> str | None:
    """What the backend says of any tensor on the device."""
    probe = torch.empty(1, 1, 1, 1, 1, device=device)
    return BACKENDS[backend].refusal(probe, probe, probe, make_geometry(1, 1, block_size=1, halo_size=0))


def _cpu_refusal(size: Size, settings: Settings, training: bool) -> str | None:
    return _refusal("cpu", settings.device)


def never(size: Size, settings: Settings, training: bool) -> None:
    """Plain PyTorch runs wherever PyTorch runs."""


CPU = Contestant(_cpu_refusal, prepare_ours("cpu", oracle="composite"))
COMPOSITE = Contestant(never, prepare_ours("composite", oracle="reference" if _refusal("cpu", "cpu") else "auto"))
REFERENCE = Contestant(never, prepare_ours("reference", oracle="composite"))
