"""The fused kernel for CPUs: the C++ library of `csrc/`, called through ctypes, as an opaque PyTorch operator.

Windows are never written to memory: a thread copies the keys and values that one block sees into its cache, attends
there, and writes the result. What the backward needs is the inputs, the output and one log-sum-exp for each query and
head. Keys outside the image cost nothing with `border="mask"`. Gradients are summed in an order that does not depend
on the number of threads.
"""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad

from halonet.ops.halo_attention.geometry import Axis, Geometry, make_geometry

FOLDER = Path(__file__).parent
LIBRARY_NAME = "halonet_cpu.dll" if os.name == "nt" else "halonet_cpu.so"
_NUMBERS_OF_AN_AXIS = ("block", "halo", "stride", "offset_stride")
INSTRUCTION_SET = "HALONET_INSTRUCTION_SET"  # environment variable: avx512, avx2 or baseline instead of the best


class _Axis(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("size", "block", "halo", "stride", "offset_stride", "num_queries", "num_blocks")
    ]


class _Image(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("batch_stride", "row_stride", "column_stride", "head_stride")),
    ]


class _Table(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("width", ctypes.c_int64)]


class Call(ctypes.Structure):
    """The `Call` of csrc/call.h, field by field."""

    _fields_ = [
        ("rows", _Axis),
        ("columns", _Axis),
        *(
            (name, ctypes.c_int64)
            for name in ("batch", "heads", "query_channels", "value_channels", "zeros", "centered", "threads")
        ),
        ("scale", ctypes.c_double),
        *((name, _Image) for name in ("query", "key", "value", "output")),
        ("row_table", _Table),
        ("column_table", _Table),
        ("log_sum", ctypes.c_void_p),
        *((name, _Image) for name in ("grad_output", "grad_query", "grad_key", "grad_value")),
        ("grad_row_table", ctypes.c_void_p),
        ("grad_column_table", ctypes.c_void_p),
    ]


def refusal(query: Tensor, key: Tensor, value: Tensor, geometry: Geometry) -> str | None:
    """Why the kernel cannot take a call, or None."""
    if query.device.type != "cpu":
        return f"it runs on the CPU, and the tensors are on {query.device}"
    if torch.compiler.is_exporting():
        return "it is no part of an exported program"
    return MISSING


def halo_attention(
    query: Float[Tensor, "batch query_rows query_columns heads d_qk"],
    key: Float[Tensor, "batch rows columns heads d_qk"],
    value: Float[Tensor, "batch rows columns heads d_v"],
    row_embedding: Float[Tensor, "row_offsets w_r"] | None,
    column_embedding: Float[Tensor, "column_offsets w_c"] | None,
    *,
    geometry: Geometry,
    scale: float,
) -> Float[Tensor, "batch query_rows query_columns heads d_v"]:
    """Attend in the C++ library, as the module docstring says."""
    numbers = [
        *(getattr(axis, name) for name in _NUMBERS_OF_AN_AXIS for axis in (geometry.rows, geometry.columns)),
        int(geometry.border == "zeros"),
        int(geometry.centered),
    ]
    given = (query, key, value, row_embedding, column_embedding)
    if forward_ad._current_level >= 0 and any(
        each is not None and forward_ad.unpack_dual(each).tangent is not None for each in given
    ):
        raise NotImplementedError("backend 'cpu' has no forward-mode derivatives; backend='reference' has")
    save = torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in given)
    return torch.ops.halonet.cpu_attention(*given, numbers, scale, save)[0]


def load() -> tuple[ctypes.CDLL | None, str | None]:
    """Open the library and choose its instruction set; where that fails, say why."""
    path = FOLDER / LIBRARY_NAME
    if not path.is_file():
        return None, (
            "this installation has no kernel, for there was no C++ compiler (GCC or Clang) when it was installed: "
            "install one and run `pip install --force-reinstall --no-deps halonet`"
        )
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return None, f"its library does not load: {error}"
    library.halonet_call_size.restype = ctypes.c_int64
    library.halonet_chosen.restype = ctypes.c_char_p
    library.halonet_use_openmp.argtypes = [ctypes.c_void_p]
    if library.halonet_call_size() != ctypes.sizeof(Call):
        return None, f"its library {path} is of another version of halonet: reinstall halonet"
    wanted = os.environ.get(INSTRUCTION_SET)
    if not library.halonet_choose(wanted.encode() if wanted else None):
        return None, f"{INSTRUCTION_SET} is {wanted!r}, which this processor or this build has not; unset it"
    library.halonet_use_openmp(_pytorch_fork())
    return library, None


def _pytorch_fork() -> int | None:
    """Address of GOMP_parallel in the OpenMP runtime that PyTorch itself runs on."""
    folder = Path(torch.__file__).parent / "lib"
    for path in (folder / "libtorch_cpu.so", folder / "libtorch_cpu.dylib"):
        try:
            return ctypes.cast(ctypes.CDLL(str(path)).GOMP_parallel, ctypes.c_void_p).value
        except (OSError, AttributeError):
            continue
    return None


# Found out once, at import, for a call that is being traced cannot: why there is no kernel, or None.
_LIBRARY, MISSING = load()
# For people: which instruction set it is.
SUMMARY = "a fused C++ kernel" + (f" ({_LIBRARY.halonet_chosen().decode()})" if _LIBRARY is not None else "")


def library() -> ctypes.CDLL:
    """The loaded library; only where `MISSING` is None."""
    assert _LIBRARY is not None, MISSING
    return _LIBRARY


def _call(numbers: Sequence[int], scale: float, tensors: Sequence[Tensor], tables: Sequence[Tensor | None]) -> Call:
    query, key, value = tensors
    geometry = _geometry(numbers, key)
    call = Call(
        rows=_axis(geometry.rows),
        columns=_axis(geometry.columns),
        batch=query.shape[0],
        heads=query.shape[3],
        query_channels=query.shape[4],
        value_channels=value.shape[4],
        zeros=geometry.border == "zeros",
        centered=geometry.centered,
        threads=torch.get_num_threads(),
        scale=scale,
        query=_image(query),
        key=_image(key),
        value=_image(value),
    )
    if tables[0] is not None and tables[1] is not None:
        call.row_table = _Table(tables[0].data_ptr(), tables[0].shape[1])
        call.column_table = _Table(tables[1].data_ptr(), tables[1].shape[1])
    return call


def _geometry(numbers: Sequence[int], key: Tensor) -> Geometry:
    block, halo, stride, offset_stride = ((numbers[i], numbers[i + 1]) for i in (0, 2, 4, 6))
    return make_geometry(
        key.shape[1],
        key.shape[2],
        block_size=block,
        halo_size=halo,
        stride=stride,
        offset_stride=offset_stride,
        border="zeros" if numbers[8] else "mask",
        centered=bool(numbers[9]),
    )


def _axis(axis: Axis) -> _Axis:
    return _Axis(axis.size, axis.block, axis.halo, axis.stride, axis.offset_stride, axis.num_queries, axis.num_blocks)


def _image(tensor: Tensor) -> _Image:
    return _Image(tensor.data_ptr(), *tensor.stride()[:4])


def _ready(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast, and copy where the channels of a head are not contiguous."""
    tensor = tensor.to(dtype)
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def _ready_table(table: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if table is None else table.to(dtype).contiguous()


def _run(call: Call, dtype: torch.dtype, backward: bool) -> None:
    if library().halonet_run(ctypes.byref(call), int(dtype == torch.float64), int(backward)):
        raise MemoryError("the CPU kernel found no memory for its work space")


_ARGUMENTS = "Tensor query, Tensor key, Tensor value, Tensor? row_embedding, Tensor? column_embedding"
_NUMBERS = "int[] numbers, float scale"
_OPERATORS = torch.library.Library("halonet", "FRAGMENT")
_OPERATORS.define(f"cpu_attention({_ARGUMENTS}, {_NUMBERS}, bool save) -> (Tensor output, Tensor log_sum)")
_OPERATORS.define(
    f"cpu_attention_backward(Tensor grad_output, {_ARGUMENTS}, Tensor output, Tensor log_sum, {_NUMBERS})"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)


@torch.library.impl(_OPERATORS, "cpu_attention", "CPU")
def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    row_embedding: Tensor | None,
    column_embedding: Tensor | None,
    numbers: Sequence[int],
    scale: float,
    save: bool,
) -> tuple[Tensor, Tensor]:
    output, log_sum = _empty(query, key, value, row_embedding, column_embedding, numbers, scale, save)
    dtype = log_sum.dtype
    result = output if output.dtype == dtype else torch.empty(output.shape, dtype=dtype)
    if output.numel():
        tensors = [_ready(tensor, dtype) for tensor in (query, key, value)]
        tables = [_ready_table(table, dtype) for table in (row_embedding, column_embedding)]
        call = _call(numbers, scale, tensors, tables)
        call.output = _image(result)
        call.log_sum = log_sum.data_ptr() if save else None
        _run(call, dtype, backward=False)
    return result.to(output.dtype), log_sum


@torch.library.register_fake("halonet::cpu_attention", lib=_OPERATORS)
def _empty(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    row_embedding: Tensor | None,
    column_embedding: Tensor | None,
    numbers: Sequence[int],
    scale: float,
    save: bool,
) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    grid = query.shape[:4]
    return query.new_empty(*grid, value.shape[4]), query.new_empty(grid if save else (0,), dtype=dtype)


@torch.library.impl(_OPERATORS, "cpu_attention_backward", "CPU")
def _backward(
    grad_output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    row_embedding: Tensor | None,
    column_embedding: Tensor | None,
    output: Tensor,
    log_sum: Tensor,
    numbers: Sequence[int],
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dtype = log_sum.dtype
    given = (query, key, value, row_embedding, column_embedding)
    tensors = [_ready(tensor, dtype) for tensor in (query, key, value)]
    tables = [_ready_table(table, dtype) for table in (row_embedding, column_embedding)]
    grads = [torch.zeros(() if each is None else each.shape, dtype=dtype) for each in given]
    if grad_output.numel():
        call = _call(numbers, scale, tensors, tables)
        output, grad_output = _ready(output, dtype), _ready(grad_output, dtype)
        call.output, call.grad_output = _image(output), _image(grad_output)
        call.grad_query, call.grad_key, call.grad_value = (_image(grad) for grad in grads[:3])
        call.grad_row_table, call.grad_column_table = (grad.data_ptr() for grad in grads[3:])
        call.log_sum = log_sum.data_ptr()
        _run(call, dtype, backward=True)
    query_grad, key_grad, value_grad, row_grad, column_grad = (
        grad if each is None else grad.to(each.dtype) for grad, each in zip(grads, given, strict=True)
    )
    return query_grad, key_grad, value_grad, row_grad, column_grad


@torch.library.register_fake("halonet::cpu_attention_backward", lib=_OPERATORS)
def _empty_backward(
    grad_output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    row_embedding: Tensor | None,
    column_embedding: Tensor | None,
    output: Tensor,
    log_sum: Tensor,
    numbers: Sequence[int],
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    query_grad, key_grad, value_grad = (each.new_empty(each.shape) for each in (query, key, value))
    row_grad, column_grad = (
        log_sum.new_empty(()) if each is None else each.new_empty(each.shape)
        for each in (row_embedding, column_embedding)
    )
    return query_grad, key_grad, value_grad, row_grad, column_grad


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.numbers, ctx.scale, _ = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, grad_output: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # read once: activation checkpointing recomputes them
    grads = torch.ops.halonet.cpu_attention_backward(grad_output, *saved, ctx.numbers, ctx.scale)
    tables = (None if table is None else grad for table, grad in zip(saved[3:5], grads[3:], strict=True))
    return *grads[:3], *tables, None, None, None


def _refuse_second_derivative(ctx: Any, *grads: Tensor) -> None:
    raise NotImplementedError("backend 'cpu' has first derivatives only; backend='reference' differentiates twice")


torch.library.register_autograd("halonet::cpu_attention", _differentiate, setup_context=_remember, lib=_OPERATORS)
torch.library.register_autograd("halonet::cpu_attention_backward", _refuse_second_derivative, lib=_OPERATORS)
