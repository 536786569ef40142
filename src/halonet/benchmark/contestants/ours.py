"""Our backends."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from halonet.benchmark.contestants.entry import Contestant, Entry, Inputs
from halonet.benchmark.settings import Settings
from halonet.benchmark.sizes import Size
from halonet.ops import halo_attention
from halonet.ops.attention.backends import BACKENDS, select_backend


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


def prepare_ours(backend: str, oracle: Callable[[Inputs], str]) -> Callable[[Inputs], Entry]:
    """Make an entry of one backend; `oracle` names the backend that it must agree with on given inputs."""

    def prepare(inputs: Inputs) -> Entry:
        leaves = [inputs.query, inputs.key, inputs.value, *inputs.tables]
        right = oracle(inputs)
        return Entry(lambda: attend(inputs, backend), leaves, lambda: (attend(inputs, backend), attend(inputs, right)))

    return prepare


def _refusal_of(backend: str) -> Callable[[Size, Settings, bool], str | None]:
    """Ask the backend itself."""

    def refusal(size: Size, settings: Settings, training: bool) -> str | None:
        geometry = size.geometry
        number = torch.empty((), dtype=settings.torch_dtype, device=settings.device)

        def probe(rows: int, columns: int, channels: int) -> Tensor:
            # All of the size and batch, in the memory of one number.
            return number.expand(settings.batch, rows, columns, size.heads, channels)

        query = probe(geometry.rows.num_queries, geometry.columns.num_queries, size.query_channels)
        key, value = (probe(size.rows, size.columns, each) for each in (size.query_channels, size.value_channels))
        return BACKENDS[backend].unsupported_reason(query, key, value, geometry)

    return refusal


def never(size: Size, settings: Settings, training: bool) -> None:
    """Plain PyTorch runs wherever PyTorch runs."""


def _other_than_composite(inputs: Inputs) -> str:
    """The fused kernel of the device, or where it is not, the specification: `composite` must not be its own judge."""
    taken = select_backend(inputs.query, inputs.key, inputs.value, inputs.size.geometry)
    return "reference" if taken == "composite" else taken


CPU = Contestant(_refusal_of("cpu"), prepare_ours("cpu", lambda inputs: "composite"))
TRITON = Contestant(_refusal_of("triton"), prepare_ours("triton", lambda inputs: "composite"))
COMPOSITE = Contestant(never, prepare_ours("composite", _other_than_composite))
REFERENCE = Contestant(never, prepare_ours("reference", lambda inputs: "composite"))
