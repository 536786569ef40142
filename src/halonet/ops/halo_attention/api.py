"""The public operator: check, choose a backend, call."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from threading import local

import torch
from torch import Tensor

from halonet.errors import UserError, UserNote
from halonet.ops import cpu_library
from halonet.ops.arguments import choice, finite_number
from halonet.ops.halo_attention import composite, cpu, reference, triton
from halonet.ops.halo_attention.geometry import Axis, Geometry, clip, make_geometry
from halonet.ops.tracing import is_autocast_available
from halonet.ops.transforms import needs_plain_operators

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@dataclass(frozen=True)
class Backend:
    """One implementation of the operator.

    Attributes:
        run: Computes the result from checked arguments.
        refusal: Says why it cannot take these tensors and this geometry, or None if it can.
        summary: What it is, in a few words.
        by_name_only: Device types on which "auto" passes it over.
    """

    run: Callable[..., Tensor]
    refusal: Callable[[Tensor, Tensor, Tensor, Geometry], str | None]
    summary: str
    by_name_only: tuple[str, ...] = ()


def _never(query: Tensor, key: Tensor, value: Tensor, geometry: Geometry) -> str | None:
    """Plain PyTorch runs wherever PyTorch runs."""
    return None


# In the order in which "auto" asks them.
BACKENDS = {
    "cpu": Backend(cpu.halo_attention, cpu.refusal, cpu.SUMMARY),
    "triton": Backend(triton.halo_attention, triton.refusal, triton.SUMMARY, by_name_only=("cpu",)),  # an interpreter
    "composite": Backend(composite.halo_attention, _never, "gathered windows and PyTorch's fused attention"),
    "reference": Backend(reference.halo_attention, _never, "the specification: slow, clear, differentiable twice"),
}


class _Context(local):
    """What `use_backend` asks for in this thread.

    Dynamo cannot trace a `ContextVar` before torch 2.14.1, and does not guard a default that is a class attribute.
    """

    def __init__(self) -> None:
        self.backend = "auto"


_context = _Context()


def backend_of_context() -> str:
    """Name that the innermost `use_backend` asks for, or "auto"."""
    return _context.backend


def describe_backends() -> list[dict[str, str]]:
    """Say what backends there are and on which devices of this machine "auto" takes them."""
    devices = ["cpu"]
    if torch.accelerator.is_available():
        devices.append(str(torch.accelerator.current_accelerator()))
    geometry = make_geometry(8, 8, block_size=8, halo_size=3)
    probes = {device: torch.empty(1, 8, 8, 1, 16, device=device) for device in devices}
    taken = {device: select_backend(probe, probe, probe, geometry) for device, probe in probes.items()}
    reasons = {name: {each.refusal(p, p, p, geometry) for p in probes.values()} for name, each in BACKENDS.items()}
    return [
        {
            "backend": name,
            "auto takes it on": ", ".join(device for device, choice in taken.items() if choice == name) or "-",
            "what it is": backend.summary + ("" if None in reasons[name] else f"; not here: {reasons[name].pop()}"),
        }
        for name, backend in BACKENDS.items()
    ]


def backend_names() -> list[str]:
    """Names that `backend=` accepts."""
    return ["auto", *BACKENDS]


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run every `halo_attention` call in this context whose `backend` is "auto" with the backend `name`.

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


def halo_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    row_embedding: Tensor | None = None,
    column_embedding: Tensor | None = None,
    *,
    block_size: int | tuple[int, int],
    halo_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    scale: float | None = None,
    border: str = "mask",
    centered: bool = False,
    offset_stride: int | tuple[int, int] | None = None,
    backend: str = "auto",
) -> Tensor:
    """Blocked local self-attention with a halo (HaloNet, sections 2.1-2.2 and appendix A).

    The image is cut from its top-left corner into blocks of b x b pixels (the last ones may be partial); all
    queries of a block attend to the block and a halo of h pixels around it. With a stride the result equals the
    stride-1 result subsampled. See `docs/operator.md`.

    Args:
        query: [batch, ceil(H / stride), ceil(W / stride), heads, d_qk]; fp64, fp32, bf16 or fp16.
        key: [batch, H, W, heads, d_qk], same dtype.
        value: [batch, H, W, heads, d_v], same dtype.
        row_embedding: [2 * (block_rows + halo_rows) - 1, w_r], or None. Entry t belongs to the offset
            key_row - query_row = t - (block_rows + halo_rows - 1). Same dtype as the query, or fp32. `split`
            tables have w_r + w_c == d_qk (rows read the first w_r channels, columns the rest); `full` tables
            have w_r == w_c == d_qk and their logits add.
        column_embedding: [2 * (block_columns + halo_columns) - 1, w_c] likewise; both tables or none.
        block_size: The paper's b in pixels, int or (rows, columns), at least 1.
        halo_size: The paper's h in pixels, int or (rows, columns), at least 0.
        stride: Pixels between queries, int or (rows, columns), at least 1.
        scale: Factor of all logits; None takes d_qk ** -0.5.
        border: "mask": keys outside the image do not exist. "zeros": they are zeros that receive their position
            logit and take weight, in a window that is always (b + 2h) squared (timm's rule).
        centered: Keep, for each query, only the keys within `halo_size` of itself (SASA).
        offset_stride: Pixels that one query step counts for in the offsets; None takes `stride`. May differ from
            it only where the stride divides the block. timm's weights use 1.
        backend: "auto", "cpu", "triton", "composite" or "reference". A named backend is obeyed or refused with the
            reason.

    Returns:
        [batch, ceil(H / stride), ceil(W / stride), heads, d_v] in the dtype of the query (under autocast: the
        autocast dtype). Softmax and sums are at least fp32; `reference` computes its logits so too, while `composite`
        rounds the position logits to bf16 in bf16.

    Raises:
        UserError: If shapes, dtypes, devices or numbers do not fit; the message names value, rule and remedy.
    """
    _check_tensors({"query": query, "key": key, "value": value})
    query, key, value = _autocast(query, key, value)
    geometry, row_embedding, column_embedding = _check(query, key, value, row_embedding, column_embedding, {
        "block_size": block_size, "halo_size": halo_size, "stride": stride,
        "offset_stride": offset_stride, "border": border, "centered": centered,
    })  # fmt: skip
    factor = _factor(scale, query)
    name = select_backend(query, key, value, geometry, backend=backend)
    if name == "composite" and backend == "auto" and query.device.type == "cpu":
        _note_missing_library()
    run = BACKENDS[name].run
    with _without_autocast(query.device.type):
        return run(query, key, value, row_embedding, column_embedding, geometry=geometry, scale=factor)


def attention_weights(
    query: Tensor,
    key: Tensor,
    row_embedding: Tensor | None = None,
    column_embedding: Tensor | None = None,
    *,
    positions: Tensor,
    block_size: int | tuple[int, int],
    halo_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    scale: float | None = None,
    border: str = "mask",
    centered: bool = False,
    offset_stride: int | tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Where the queries at some positions look, as maps over the image.

    Args:
        query: [batch, ceil(H / stride), ceil(W / stride), heads, d_qk], as in `halo_attention`.
        key: [batch, H, W, heads, d_qk].
        row_embedding: As in `halo_attention`.
        column_embedding: As in `halo_attention`.
        positions: Integers [P, 2], rows and columns of the query grid.
        block_size: As in `halo_attention`, like all that follow.
        halo_size: The paper's h.
        stride: Pixels between queries.
        scale: Factor of all logits; None takes d_qk ** -0.5.
        border: "mask" or "zeros".
        centered: Whether each query keeps only its own centered window.
        offset_stride: Pixels that one query step counts for in the offsets.

    Returns:
        The weights [batch, P, heads, H, W] (0 outside the window), and the weight [batch, P, heads] that went to
        padding (0 with `border="mask"`); both fp32, or fp64 for fp64 inputs. Together they sum to 1.

    Raises:
        UserError: If anything does not fit, or a position lies outside the query grid.
    """
    _check_tensors({"query": query, "key": key})
    geometry, row_embedding, column_embedding = _check(query, key, None, row_embedding, column_embedding, {
        "block_size": block_size, "halo_size": halo_size, "stride": stride,
        "offset_stride": offset_stride, "border": border, "centered": centered,
    })  # fmt: skip
    rows, columns = _check_positions(positions, query)
    height, width = key.shape[1], key.shape[2]
    with _without_autocast(query.device.type):
        probabilities, window_rows, window_columns = reference.window_probabilities(
            query[:, rows, columns],
            key,
            row_embedding,
            column_embedding,
            rows=rows,
            columns=columns,
            geometry=geometry,
            scale=_factor(scale, query),
        )
    # One extra cell at the end collects the mass on padding.
    inside_rows = (window_rows >= 0) & (window_rows < height)
    inside_columns = (window_columns >= 0) & (window_columns < width)
    cells = window_rows[:, :, None] * width + window_columns[:, None, :]
    cells = torch.where(inside_rows[:, :, None] & inside_columns[:, None, :], cells, height * width)
    probabilities = probabilities.flatten(-2)
    maps = probabilities.new_zeros(*probabilities.shape[:3], height * width + 1)
    maps = maps.scatter_add(-1, cells.flatten(1)[None, :, None].expand_as(probabilities), probabilities)
    return maps[..., :-1].unflatten(-1, (height, width)), maps[..., -1]


def select_backend(query: Tensor, key: Tensor, value: Tensor, geometry: Geometry, *, backend: str = "auto") -> str:
    """Name of the backend that runs a call: a function of the tensors' metadata, the geometry, and what is traced.

    Under the transforms of `torch.func` and in forward mode, "auto" takes a backend that can differentiate so.

    Args:
        query: As checked by `halo_attention`, like `key` and `value`.
        key: See above.
        value: See above.
        geometry: The integers of the call.
        backend: What the caller asked for; "auto" takes that of `use_backend`, or the first that can.

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
            if query.device.type not in each.by_name_only and not each.refusal(query, key, value, geometry)
        )
    reason = BACKENDS[backend].refusal(query, key, value, geometry)
    if reason:
        raise UserError(f"backend {backend!r} cannot run this call: {reason}. backend='auto' picks one that can")
    return backend


def _note_missing_library() -> None:
    """Say once that this call could have been fast."""
    if cpu_library.MISSING and backend_of_context() == "auto" and not torch.compiler.is_compiling():
        _note_once(f"attention runs on the slower backend 'composite': {cpu_library.MISSING}")


@cache
def _note_once(note: str) -> None:
    warnings.warn(UserNote(note), stacklevel=4)


def _factor(scale: float | None, query: Tensor) -> float:
    return query.shape[-1] ** -0.5 if scale is None else finite_number("scale", scale)


def _check_tensors(tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise UserError(f"{name} is of type {type(tensor).__name__}, but must be a torch.Tensor")
        if tensor.dim() != 5:
            layout = "[batch, rows, columns, heads, channels]"
            raise UserError(f"{name} has shape {_shape(tensor)}; it must have five axes {layout}")


def _check(
    query: Tensor,
    key: Tensor,
    value: Tensor | None,
    row_embedding: Tensor | None,
    column_embedding: Tensor | None,
    numbers: dict,
) -> tuple[Geometry, Tensor | None, Tensor | None]:
    """Refuse what does not fit; return what the backends get: the geometry, no larger than need be, and its tables."""
    named = {"query": query, "key": key} | ({} if value is None else {"value": value})
    for name, tensor in named.items():
        if tensor.dtype not in DTYPES:
            raise UserError(f"{name} is {tensor.dtype}, but must be float64, float32, bfloat16 or float16")
        if tensor.dtype != query.dtype:
            raise UserError(f"{name} is {tensor.dtype} but query is {query.dtype}; they must share one dtype")
        if tensor.device != query.device:
            raise UserError(f"{name} is on {tensor.device} but query is on {query.device}; move them together")
    if value is not None and value.shape[:4] != key.shape[:4]:
        raise UserError(f"value has shape {_shape(value)} and key {_shape(key)}; batch, H, W and heads must be equal")
    geometry = make_geometry(key.shape[1], key.shape[2], **numbers)
    expected = (
        key.shape[0],
        geometry.rows.num_queries,
        geometry.columns.num_queries,
        key.shape[3],
        key.shape[4],
    )
    if tuple(query.shape) != expected:
        strides = (geometry.rows.stride, geometry.columns.stride)
        raise UserError(
            f"query has shape {_shape(query)}; for a key of shape {_shape(key)} and stride {strides} it must be "
            f"[batch, ceil(H / stride), ceil(W / stride), heads, d_qk] = {list(expected)}"
        )
    if query.shape[3] < 1 or query.shape[4] < 1:
        raise UserError(f"query has shape {_shape(query)}; heads and d_qk must be at least 1")
    _check_tables(query, row_embedding, column_embedding, geometry)
    clipped = clip(geometry)
    return (
        clipped,
        _around_offset_0(row_embedding, geometry.rows, clipped.rows),
        _around_offset_0(column_embedding, geometry.columns, clipped.columns),
    )


def _around_offset_0(table: Tensor | None, axis: Axis, clipped: Axis) -> Tensor | None:
    """Cut a table of an axis to the offsets that are left of it."""
    if table is None or clipped.table_length == axis.table_length:
        return table
    return table.narrow(0, (axis.table_length - clipped.table_length) // 2, clipped.table_length)


def _check_tables(
    query: Tensor, row_embedding: Tensor | None, column_embedding: Tensor | None, geometry: Geometry
) -> None:
    if row_embedding is None and column_embedding is None:
        return
    if row_embedding is None or column_embedding is None:
        missing = "row_embedding" if row_embedding is None else "column_embedding"
        raise UserError(f"{missing} is None but the other table is given; pass both tables or none")
    tables = {
        "row_embedding": (row_embedding, geometry.rows),
        "column_embedding": (column_embedding, geometry.columns),
    }
    for name, (table, axis) in tables.items():
        if not isinstance(table, Tensor):
            raise UserError(f"{name} is of type {type(table).__name__}, but must be a torch.Tensor")
        if table.dim() != 2 or table.shape[0] != axis.table_length:
            raise UserError(
                f"{name} has shape {_shape(table)}; with block {axis.block} and halo {axis.halo} it must be "
                f"[2 * (block + halo) - 1, width] = [{axis.table_length}, width]"
            )
        if table.dtype not in (query.dtype, torch.float32):
            raise UserError(f"{name} is {table.dtype}, but must be {query.dtype}, like query, or torch.float32")
        if table.device != query.device:
            raise UserError(f"{name} is on {table.device} but query is on {query.device}; move them together")
    widths, d_qk = (row_embedding.shape[1], column_embedding.shape[1]), query.shape[-1]
    if sum(widths) != d_qk and widths != (d_qk, d_qk):
        raise UserError(
            f"the tables are {widths[0]} and {widths[1]} channels wide; for heads of d_qk = {d_qk} channels the "
            f"widths must add up to {d_qk} (split) or both be {d_qk} (full)"
        )


def _check_positions(positions: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    if not isinstance(positions, Tensor):
        raise UserError(f"positions is of type {type(positions).__name__}, but must be a torch.Tensor")
    if positions.dim() != 2 or positions.shape[1] != 2 or positions.dtype not in INTEGERS:
        raise UserError(f"positions is {positions.dtype} {_shape(positions)}, but must be integers of shape [P, 2]")
    rows, columns = positions.to(query.device).long().unbind(1)
    height, width = query.shape[1], query.shape[2]
    outside = (rows < 0) | (rows >= height) | (columns < 0) | (columns >= width)
    if bool(outside.any()):
        first = positions[int(outside.nonzero()[0])].tolist()
        raise UserError(f"positions holds {first}, outside the query grid of {height} rows x {width} columns")
    return rows, columns


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)


def _autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Cast as PyTorch's own autocast would: fp64 stays, the rest takes the autocast dtype."""
    device = tensors[0].device.type
    if not _autocast_enabled(device):
        return tensors
    low = torch.get_autocast_dtype(device)
    eligible = (torch.float32, torch.bfloat16, torch.float16)
    return tuple(tensor.to(low) if tensor.dtype in eligible else tensor for tensor in tensors)


def _autocast_enabled(device: str) -> bool:
    return is_autocast_available(device) and torch.is_autocast_enabled(device)


def _without_autocast(device: str) -> AbstractContextManager[object]:
    return torch.autocast(device, enabled=False) if _autocast_enabled(device) else nullcontext()
