"""Programs compiled to machine code by AOTInductor; they run without Python too."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from halonet.errors import UserError

# Inductor takes an axis that has one block in the traced example for an axis that always has.
TRACED_SIDE = 1024


def check_compiler() -> None:
    """Raise a `UserError` if there is no C++ compiler."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise UserError(
            "exporting to aoti needs a C++ compiler, but none was found: install GCC, or name one by the environment "
            "variable CXX"
        ) from error


def compile_program(program: ExportedProgram, metadata: Mapping[str, str], path: Path) -> None:
    """Compile a program for the processor of this machine, and package it as a file."""
    options = {"aot_inductor.metadata": dict(metadata), "cpp.dynamic_threads": True}
    with _quick_strides():
        torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)


def open_compiled(path: Path) -> Any:
    """Load a compiled program."""
    return torch._inductor.aoti_load_package(str(path))


@contextmanager
def _quick_strides() -> Iterator[None]:
    """Let Inductor find strides by multiplying out; its way, sympy's `simplify`, takes over ten minutes a network."""
    from torch._inductor import sizevars

    original = sizevars.stride_at
    sizevars.stride_at = _stride_at  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        sizevars.stride_at = original


@lru_cache
def _stride_at(index: Any, variable: Any) -> Any:
    return (index.xreplace({variable: variable + 1}) - index).expand()
