"""Our backends as implementations to compare."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from halonet.benchmark.peers.implementation import Implementation, Inputs, Prepared
from halonet.benchmark.settings import Settings
from halonet.benchmark.sizes import Size
from halonet.ops import halo_attention
from halonet.ops.attention.backends import BACKENDS, select_backend


def attend(inputs: Inputs, backend: str = "auto", *, tables: Sequence[Tensor] | None = None, **changes: Any) -> Tensor:
    """Compute attention on a backend of ours: [batch, query_rows, query_columns, heads, d_v].

    `tables` replace those of the inputs (an empty sequence means none), `changes` are options in which a peer differs.
    """
    tensors = (inputs.query, inputs.key, inputs.value, *(inputs.tables if tables is None else tables))
    return halo_attention(*tensors, backend=backend, **inputs.size.options, **changes)


def prepare_ours(backend: str, oracle: Callable[[Inputs], str]) -> Callable[[Inputs], Prepared]:
    """Prepare one backend; `oracle` names the backend that it must agree with on given inputs."""

    def prepare(inputs: Inputs) -> Prepared:
        leaves = [inputs.query, inputs.key, inputs.value, *inputs.tables]
        other = oracle(inputs)
        return Prepared(
            lambda: attend(inputs, backend), leaves, lambda: (attend(inputs, backend), attend(inputs, other))
        )

    return prepare


def _reason_of(backend: str) -> Callable[[Size, Settings, bool], str | None]:
    """Ask the backend itself."""

    def unsupported_reason(size: Size, settings: Settings, training: bool) -> str | None:
        geometry = size.geometry
        number = torch.empty((), dtype=settings.torch_dtype, device=settings.device)

        def probe(rows: int, columns: int, channels: int) -> Tensor:
            # The full shape, in the memory of one number.
            return number.expand(settings.batch, rows, columns, size.heads, channels)

        query = probe(geometry.rows.num_queries, geometry.columns.num_queries, size.query_channels)
        key, value = (probe(size.rows, size.columns, each) for each in (size.query_channels, size.value_channels))
        return BACKENDS[backend].unsupported_reason(query, key, value, geometry)

    return unsupported_reason


def always_supported(size: Size, settings: Settings, training: bool) -> None:
    """Plain PyTorch runs wherever PyTorch runs."""


def _other_than_composite(inputs: Inputs) -> str:
    """The fused backend, or the specification where there is none: `composite` must not be compared with itself."""
    taken = select_backend(inputs.query, inputs.key, inputs.value, inputs.size.geometry)
    return "reference" if taken == "composite" else taken


CPU = Implementation(_reason_of("cpu"), prepare_ours("cpu", lambda inputs: "composite"))
TRITON = Implementation(_reason_of("triton"), prepare_ours("triton", lambda inputs: "composite"))
COMPOSITE = Implementation(always_supported, prepare_ours("composite", _other_than_composite))
REFERENCE = Implementation(always_supported, prepare_ours("reference", lambda inputs: "composite"))
