"""The list of backends, which of them runs a call, and which of them this machine can run."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from threading import local

import torch
from torch import Tensor

from halonet.errors import UserError, UserNote
from halonet.ops import cpu_library
from halonet.ops.arguments import choice
from halonet.ops.attention import composite, cpu, reference, triton
from halonet.ops.attention.geometry import Geometry, make_geometry
from halonet.ops.transforms import needs_plain_operators


@dataclass(frozen=True)
class Backend:
    """One implementation of the operator.

    Attributes:
        run: Computes the result from checked arguments.
        unsupported_reason: Says why it cannot take these tensors and this geometry, or None if it can.
        summary: What it is, in a few words.
        by_name_only: Device types on which "auto" passes it over.
        run_packed: Computes it from a checked `Packed` and the tables, if it can.
    """

    run: Callable[..., Tensor]
    unsupported_reason: Callable[[Tensor, Tensor, Tensor, Geometry], str | None]
    summary: str
    by_name_only: tuple[str, ...] = ()
    run_packed: Callable[..., Tensor] | None = None


def _never(query: Tensor, key: Tensor, value: Tensor, geometry: Geometry) -> str | None:
    """Plain PyTorch runs wherever PyTorch runs."""
    return None


# In the order in which "auto" asks them.
BACKENDS = {
    "cpu": Backend(cpu.halo_attention, cpu.unsupported_reason, cpu.SUMMARY, run_packed=cpu.packed_attention),
    "triton": Backend(
        triton.halo_attention,
        triton.unsupported_reason,
        triton.SUMMARY,
        by_name_only=("cpu",),  # an interpreter
        run_packed=triton.packed_attention,
    ),
    "composite": Backend(composite.halo_attention, _never, "gathered windows and PyTorch's fused attention"),
    "reference": Backend(reference.halo_attention, _never, "the specification: slow, clear, differentiable twice"),
}


class _Context(local):
    """The backend that `use_backend` chose in this thread.

    Dynamo cannot trace a `ContextVar` before torch 2.14.1, and does not guard a default that is a class attribute.
    """

    def __init__(self) -> None:
        self.backend = "auto"


_context = _Context()


def backend_of_context() -> str:
    """Name given to the innermost `use_backend`, or "auto"."""
    return _context.backend


def describe_backends() -> list[dict[str, str]]:
    """List the backends, and on which devices of this machine "auto" takes each."""
    devices = ["cpu"]
    if torch.accelerator.is_available():
        devices.append(str(torch.accelerator.current_accelerator()))
    geometry = make_geometry(8, 8, block_size=8, halo_size=3)
    probes = {device: torch.empty(1, 8, 8, 1, 16, device=device) for device in devices}
    taken = {device: select_backend(probe, probe, probe, geometry) for device, probe in probes.items()}
    described = []
    for name, backend in BACKENDS.items():
        reasons = {backend.unsupported_reason(probe, probe, probe, geometry) for probe in probes.values()}
        missing = "" if None in reasons else f"; not here: {reasons.pop()}"
        used_on = ", ".join(device for device, chosen in taken.items() if chosen == name)
        described.append({"backend": name, "auto_devices": used_on or "-", "summary": backend.summary + missing})
    return described


def backend_names() -> list[str]:
    """Names that `backend=` accepts."""
    return ["auto", *BACKENDS]


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Use the backend `name` for calls in this context that leave `backend` at "auto".

    It holds for the thread that entered it: other threads keep "auto", and the asyncio tasks of one thread share it.

    Args:
        name: "auto", "cpu", "triton", "composite" or "reference". A backend named in the call itself wins.

    Raises:
        UserError: If no such backend exists.
    """
    choice("backend", name, backend_names())
    before, _context.backend = _context.backend, name
    try:
        yield
    finally:
        _context.backend = before


def select_backend(query: Tensor, key: Tensor, value: Tensor, geometry: Geometry, *, backend: str = "auto") -> str:
    """Name of the backend that runs a call with checked tensors, of which only metadata are read.

    "auto" takes that of `use_backend`, "reference" where `needs_plain_operators`, or the first that can run the call.

    Raises:
        UserError: If the name is unknown, or the named backend cannot take this call.
    """
    choice("backend", backend, backend_names())
    if backend == "auto":
        backend = _context.backend
    if backend == "auto" and needs_plain_operators():
        return "reference"
    if backend == "auto":
        return next(
            name
            for name, each in BACKENDS.items()
            if query.device.type not in each.by_name_only and not each.unsupported_reason(query, key, value, geometry)
        )
    reason = BACKENDS[backend].unsupported_reason(query, key, value, geometry)
    if reason:
        raise UserError(f"backend {backend!r} cannot run this call: {reason}. backend='auto' picks one that can")
    return backend


def note_missing_library() -> None:
    """Warn once that the CPU kernel, which is faster, is missing."""
    if cpu_library.MISSING and backend_of_context() == "auto" and not torch.compiler.is_compiling():
        _note_once(f"attention runs on the slower backend 'composite': {cpu_library.MISSING}")


@cache
def _note_once(note: str) -> None:
    warnings.warn(UserNote(note), stacklevel=4)
