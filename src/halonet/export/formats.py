"""The formats that a network can be exported to: how a file is written, and how it is run."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from halonet.complaints import must_be_one_of
from halonet.errors import UserError
from halonet.export.compiled import TRACED_SIDE, check_compiler, compile_program, open_compiled
from halonet.export.onnx_model import as_texts, open_session, set_metadata, translate
from halonet.export.program import AXES, INPUT
from halonet.installation import command_for_extra

Run = Callable[[Tensor], list[Tensor]]


@dataclass(frozen=True)
class Format:
    """A format of exported networks.

    Attributes:
        summary: What it is, in a few words.
        suffix: Of its files.
        write: Writes a program with its metadata to a file; also given the names of the outputs.
        open: Reads a file, and returns what runs it.
        packages: What must be installed, all of the extra "export".
        check: Raises a `UserError` if something else is missing.
        traced_side: Side in pixels of the images to trace with; None takes the one that the network is made for.
    """

    summary: str
    suffix: str
    write: Callable[[ExportedProgram, Mapping[str, Any], Sequence[str], Path], object]
    open: Callable[[Path], Run]
    packages: tuple[str, ...] = ()
    check: Callable[[], object] | None = None
    traced_side: int | None = None


def find_format(name: str | None, path: Path) -> str:
    """Name the format of a file: the one asked for, or the first with the file's suffix.

    Raises:
        UserError: The format is unknown or does not fit the suffix, or something that it needs is not installed.
    """
    if name is None:
        name = next((each for each, format in FORMATS.items() if format.suffix == path.suffix), None)
    if name is None:
        suffixes = " or ".join(dict.fromkeys(format.suffix for format in FORMATS.values()))
        raise UserError(f"cannot tell the format of {path}: name it with the suffix {suffixes}, or give --format")
    if name not in FORMATS:
        raise must_be_one_of("format", name, list(FORMATS)).error()
    format = FORMATS[name]
    if path.suffix != format.suffix:
        raise UserError(f"cannot write {path}: the name of a file of format {name} must end in {format.suffix}")
    for package in format.packages:
        if find_spec(package) is None:
            raise UserError(f"exporting to {name} needs {package}: {command_for_extra('export')}")
    if format.check is not None:
        format.check()
    return name


def _write_onnx(program: ExportedProgram, metadata: Mapping[str, Any], outputs: Sequence[str], path: Path) -> None:
    import onnx
    import onnx_ir

    model = translate(program, AXES, outputs)
    set_metadata(model, metadata)
    onnx_ir.save(model, path)
    onnx.checker.check_model(str(path), full_check=True)


def _open_onnx(path: Path) -> Run:
    session = open_session(str(path))
    return lambda image: [torch.as_tensor(each) for each in session.run(None, {INPUT: image.numpy()})]


def _write_program(program: ExportedProgram, metadata: Mapping[str, Any], outputs: Sequence[str], path: Path) -> None:
    program.example_inputs = None
    for node in program.graph.nodes:  # where it was traced is half of the file, and has paths of this machine
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack"):
            node.meta.pop(key, None)
    content = io.BytesIO()  # on a full disk, PyTorch's own writing of files ends the process
    torch.export.save(program, content, extra_files=as_texts(metadata))
    path.write_bytes(content.getbuffer())


def _open_program(path: Path) -> Run:
    module = torch.export.load(path).module()
    return lambda image: as_list(module(image))


def _write_compiled(program: ExportedProgram, metadata: Mapping[str, Any], outputs: Sequence[str], path: Path) -> None:
    compile_program(program, as_texts(metadata), path)


def _open_compiled(path: Path) -> Run:
    module = open_compiled(path)
    return lambda image: as_list(module(image))


def as_list(outputs: Any) -> list[Tensor]:
    """List the outputs of a network, which may be a single tensor."""
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


FORMATS = {
    "onnx": Format(
        "ONNX, for ONNX Runtime and others",
        ".onnx",
        _write_onnx,
        _open_onnx,
        packages=("onnx", "onnxscript", "onnxruntime"),
    ),
    "pt2": Format("an exported program of PyTorch", ".pt2", _write_program, _open_program),
    "aoti": Format(
        "a program compiled for this processor by AOTInductor",
        ".pt2",
        _write_compiled,
        _open_compiled,
        check=check_compiler,
        traced_side=TRACED_SIDE,
    ),
}
"""By name; of formats with the same suffix, a file without a format is the first."""
