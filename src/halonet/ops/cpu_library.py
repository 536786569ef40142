"""The C++ library of `csrc/`, loaded once at import with the instruction set it is to use."""

import ctypes
import os
from pathlib import Path

import torch

from halonet.errors import UserError
from halonet.installation import command_to_rebuild

FOLDER = Path(__file__).parent
NAME = "halonet_cpu.dll" if os.name == "nt" else "halonet_cpu.so"
INSTRUCTION_SET = "HALONET_INSTRUCTION_SET"  # environment variable: avx512, avx2 or baseline instead of the best
LIBRARY = "HALONET_LIBRARY"  # environment variable: path of another build of the library
# What the library returns, as `Status` in csrc/check.h.
NO_MEMORY, TOO_LARGE = 1, 3


class Axis(ctypes.Structure):
    """Mirrors `Axis` of csrc/call.h, field by field, as the structures below mirror theirs."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("size", "block", "halo", "stride", "offset_stride", "num_queries", "num_blocks")
    ]


class Image(ctypes.Structure):
    """Address and strides of a tensor."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("batch_stride", "row_stride", "column_stride", "head_stride")),
    ]


class Table(ctypes.Structure):
    """Address and width of a position table."""

    _fields_ = [("data", ctypes.c_void_p), ("width", ctypes.c_int64)]


class Call(ctypes.Structure):
    """Halo attention, forward or backward."""

    _fields_ = [
        ("rows", Axis),
        ("columns", Axis),
        *(
            (name, ctypes.c_int64)
            for name in ("batch", "heads", "query_channels", "value_channels", "zeros", "centered", "threads")
        ),
        ("scale", ctypes.c_double),
        *((name, Image) for name in ("query", "key", "value", "output")),
        ("row_table", Table),
        ("column_table", Table),
        ("log_sum", ctypes.c_void_p),
        *((name, Image) for name in ("grad_output", "grad_query", "grad_key", "grad_value")),
        ("grad_row_table", ctypes.c_void_p),
        ("grad_column_table", ctypes.c_void_p),
    ]


class NormCall(ctypes.Structure):
    """Batch norm with the activation, forward or backward."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("pixels", "channels", "activation", "training", "threads")),
        *((name, ctypes.c_double) for name in ("epsilon", "momentum")),
        *((name, ctypes.c_void_p) for name in ("input", "residual", "weight", "bias", "mean", "variance", "output")),
        *((name, ctypes.c_void_p) for name in ("running_mean", "running_variance")),
        *(
            (name, ctypes.c_void_p)
            for name in ("grad_output", "grad_input", "grad_residual", "grad_weight", "grad_bias")
        ),
    ]


def load() -> tuple[ctypes.CDLL | None, str | None]:
    """Open the library and choose its instruction set; return it, or why that failed."""
    path = Path(os.environ.get(LIBRARY) or FOLDER / NAME)
    if not path.is_file():
        return None, (
            "this installation has no kernel, for there was no C++ compiler (GCC or Clang) when it was installed: "
            f"install one and run `{command_to_rebuild()}`"
        )
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return None, f"its library does not load: {error}"
    if _sizes_of_calls(library) != (ctypes.sizeof(Call), ctypes.sizeof(NormCall)):
        return None, f"its library {path} is of another version of halonet: reinstall halonet"
    library.halonet_chosen.restype = ctypes.c_char_p
    library.halonet_use_openmp.argtypes = [ctypes.c_void_p]
    wanted = os.environ.get(INSTRUCTION_SET)
    if not library.halonet_choose(wanted.encode() if wanted else None):
        return None, f"{INSTRUCTION_SET} is {wanted!r}, which this processor or this build has not; unset it"
    library.halonet_use_openmp(_pytorch_fork())
    return library, None


def _sizes_of_calls(library: ctypes.CDLL) -> tuple[int, int] | None:
    """Bytes of both calls in the library, or None in one too old to say."""
    try:
        functions = library.halonet_call_size, library.halonet_norm_call_size
    except AttributeError:
        return None
    for function in functions:
        function.restype = ctypes.c_int64
    return functions[0](), functions[1]()


def _pytorch_fork() -> int | None:
    """Address of GOMP_parallel in the OpenMP runtime that PyTorch itself runs on."""
    folder = Path(torch.__file__).parent / "lib"
    for path in (folder / "libtorch_cpu.so", folder / "libtorch_cpu.dylib"):
        try:
            return ctypes.cast(ctypes.CDLL(str(path)).GOMP_parallel, ctypes.c_void_p).value
        except (OSError, AttributeError):
            continue
    return None


# Why there is no kernel, or None. Loaded at import because a call that is being traced cannot load it.
_LIBRARY, MISSING = load()


def library() -> ctypes.CDLL:
    """The loaded library; only where `MISSING` is None."""
    assert _LIBRARY is not None, MISSING
    return _LIBRARY


def instruction_set() -> str | None:
    """Which of its instruction sets the library runs, or None where it is missing."""
    return None if _LIBRARY is None else _LIBRARY.halonet_chosen().decode()


def run(function: str, call: ctypes.Structure, dtype: torch.dtype, *, backward: bool) -> None:
    """Run "halonet_run" or "halonet_norm" on a call whose tensors are all fp32 or all fp64, and alive.

    Raises:
        UserError: If there is no room for the work space, or it cannot be counted in 64 bits.
        RuntimeError: If the numbers of the call contradict one another, which is a mistake in this package.
    """
    status = getattr(library(), function)(ctypes.byref(call), int(dtype == torch.float64), int(backward))
    if status in (NO_MEMORY, TOO_LARGE):
        reason = "found no memory for" if status == NO_MEMORY else "cannot count, in 64 bits, the bytes of"
        raise UserError(
            f"the CPU kernel {reason} the work space of this call; take smaller blocks and halos, fewer threads "
            "(torch.set_num_threads), or backend='composite'"
        )
    if status:
        raise RuntimeError(f"the CPU kernel refused a call of {function} whose numbers contradict one another")
