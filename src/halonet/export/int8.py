"""Files whose convolutions and linear layers compute with 8-bit integers, for CPUs.

Attention itself stays in floating point: its logits, softmax and products with the values have no weights, so that
there is little to save, and ranges that differ from image to image, which cost much accuracy.
"""

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from halonet.data.images import open_image
from halonet.errors import ExportError, UserError
from halonet.export.formats import FORMATS, Run, as_list
from halonet.export.program import INPUT, Bounds
from halonet.installation import command_for_extra

LEAST_IMAGES = 10
MOST_IMAGES = 256
TOLERANCE = 0.5  # root mean square of the difference, relative to that of the outputs; usual are 0.02 to 0.15
BATCH = 16


@runtime_checkable
class Images(Protocol):
    """Images to calibrate with, [channels, height, width] each, as the file takes them; read when they are needed."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


class ImageFiles:
    """Image files to calibrate with, as `transform` prepares them."""

    def __init__(self, files: Sequence[Path], transform: Callable[[Image.Image], Tensor]) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int, /) -> Tensor:
        return self.transform(open_image(self.files[index]))


class Agreement(NamedTuple):
    """How an int8 file compares with its network on the images that it was calibrated with.

    Attributes:
        images: How many.
        labels: The part of the images whose best class is the same; None without classes.
        error: Root mean square of the differences, relative to that of the outputs.
    """

    images: int
    labels: float | None
    error: float


def check_calibration(images: Images, format: str, channels: int, bounds: Bounds) -> None:
    """Raise a `UserError` if the format has no int8, torchao is missing, or the images are few or do not fit."""
    if format == "aoti":
        raise UserError("format is 'aoti', which has no int8: choose onnx or pt2, or leave the calibration images out")
    if format == "pt2" and find_spec("torchao") is None:
        raise UserError(f"exporting to pt2 in int8 needs torchao: {command_for_extra('export')}")
    if len(images) < LEAST_IMAGES:
        raise UserError(
            f"int8 needs at least {LEAST_IMAGES} images to calibrate with, but there are {len(images)}: give some "
            f"{MOST_IMAGES} like those that the network will see"
        )
    first = images[0]
    most = bounds.max_size or math.inf
    fits = isinstance(first, Tensor) and first.dtype == torch.float32 and first.dim() == 3
    if not (fits and first.shape[0] == channels and all(bounds.min_size <= side <= most for side in first.shape[1:])):
        found = f"{first.dtype} of shape {list(first.shape)}" if isinstance(first, Tensor) else type(first).__name__
        sides = f"at least {bounds.min_size}" if bounds.max_size is None else f"{bounds.min_size} to {bounds.max_size}"
        raise UserError(
            f"an image to calibrate with is {found}, but must be torch.float32 of shape [{channels}, height, width] "
            f"with sides of {sides} pixels"
        )


def write_int8(
    format: str,
    program: ExportedProgram,
    metadata: Mapping[str, Any],
    outputs: Sequence[str],
    path: Path,
    images: Images,
    export: Callable[[nn.Module], ExportedProgram],
) -> None:
    """Quantize a program and write it, see `Format.write`; `export` makes a program of a quantized module."""
    metadata = {**metadata, "precision": "int8"}
    if format == "onnx":
        in_float = path.with_suffix(".float.onnx")
        FORMATS[format].write(program, metadata, outputs, in_float)
        _quantize_onnx(in_float, path, images)
    else:
        FORMATS[format].write(_quantize_program(program, images, export), metadata, outputs, path)


def _quantize_onnx(in_float: Path, path: Path, images: Images) -> None:
    """Insert pairs of QuantizeLinear and DequantizeLinear, by onnxruntime's static quantizer."""
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    model = onnx.load(in_float)
    metadata = list(model.metadata_props)
    # Folding and shapes, which it would warn of, are done.
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    quantize_static(
        model,
        path,
        _Reader(images),  # pyright: ignore[reportArgumentType] - it has the one method that is called
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv", "Gemm", "MatMul"],
        nodes_to_quantize=_layers(model),
        # What follows a linear layer computes in floating point.
        extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
    )
    quantized = onnx.load(path)
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(metadata)
    onnx.save(quantized, path)
    onnx.checker.check_model(str(path), full_check=True)


def _layers(model: Any) -> list[str]:
    """Name the layers with weights, except the first, where int8 costs most accuracy and saves least time."""
    # A product with a tensor of other dimensions looks positions up, which belongs to attention.
    weights = {each.name: len(each.dims) for each in model.graph.initializer}
    dimensions = {"Conv": 4, "Gemm": 2, "MatMul": 2}
    layers = [
        node.name
        for node in model.graph.node
        if node.op_type in dimensions and weights.get(node.input[1]) == dimensions[node.op_type]
    ]
    return layers[1:]


class _Reader:
    """Images as onnxruntime asks for them."""

    def __init__(self, images: Images) -> None:
        self._batches = batches(images, BATCH)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch.numpy()}


def _quantize_program(
    program: ExportedProgram, images: Images, export: Callable[[nn.Module], ExportedProgram]
) -> ExportedProgram:
    """Quantize a program by torchao's PT2E, for the x86 backend of Inductor."""
    prepare, convert, quantizer = _import_torchao()
    module = prepare(program.module(), quantizer)
    with torch.no_grad():
        for batch in batches(images, BATCH):
            module(batch)
    return export(_without_unused(convert(module)))


def _without_unused(module: GraphModule) -> GraphModule:
    """Remove what the program does not use: weights in floating point that are int8 now."""
    used = {node.target for node in module.graph.nodes if node.op == "get_attr"}
    for name, _ in [*module.named_parameters(), *module.named_buffers()]:
        if name not in used:
            parent, _, child = name.rpartition(".")
            delattr(module.get_submodule(parent), child)
    return module


def _import_torchao() -> tuple[Callable[..., Any], Callable[..., Any], Any]:
    pytree = logging.getLogger("torch.utils._pytree")
    level = pytree.level
    # torchao registers an enumeration in a way that this torch finds old, and has texts that Python warns of.
    pytree.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torchao.quantization.pt2e import quantize_pt2e
            from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86
    finally:
        pytree.setLevel(level)
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    return quantize_pt2e.prepare_pt2e, quantize_pt2e.convert_pt2e, quantizer


def verify_int8(
    run: Run, network: nn.Module, images: Images, sizes: Sequence[tuple[int, int, int]], path: Path
) -> Agreement:
    """Compare an int8 file with its network, on the images as they are and scaled to other sizes.

    Args:
        run: Runs the file.
        network: In floating point.
        images: To calibrate with.
        sizes: [batch, height, width].
        path: Of the file, for messages.

    Raises:
        ExportError: They differ by more than rounding to 8 bits explains.
    """
    same = total = 0
    has_labels = False
    errors = []
    for batch in batches(images, BATCH):
        expected, found = _compare(run, network, batch)
        errors.append(_error(expected, found))
        has_labels = expected[0].dim() == 2
        if has_labels:
            same += int((expected[0].argmax(1) == found[0].argmax(1)).sum())
        total += len(batch)
    agreement = Agreement(total, same / total if has_labels else None, sum(errors) / len(errors))
    _require(agreement.error, path, f"the {total} images of the calibration")
    for count, height, width in sizes:
        some = torch.stack([images[index % len(images)] for index in range(count)])
        scaled = F.interpolate(some, (height, width), mode="bilinear", antialias=True)
        error = _error(*_compare(run, network, scaled))
        _require(error, path, f"{count} images of {height} x {width} pixels")
    return agreement


def _compare(run: Run, network: nn.Module, batch: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    with torch.no_grad():
        return as_list(network(batch)), run(batch)


def _error(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    if [each.shape for each in expected] != [each.shape for each in found]:
        return float("inf")
    return max(
        float((theirs - ours).square().mean().sqrt() / ours.square().mean().sqrt().clamp(min=1e-6))
        for ours, theirs in zip(expected, found, strict=True)
    )


def _require(error: float, path: Path, where: str) -> None:
    if not error <= TOLERANCE:
        raise ExportError(
            f"{path} was not written: in int8 the outputs for {where} would differ by {100 * error:.0f} % from the "
            "network's; calibrate with images like those that the network was trained on, or leave int8 out"
        )


def batches(images: Images, size: int) -> Iterator[Tensor]:
    """Read images batch by batch: at most `MOST_IMAGES`, evenly spaced, so that folders of all classes take part."""
    count = min(len(images), MOST_IMAGES)
    chosen = [index * len(images) // count for index in range(count)]
    kinds = set()
    for start in range(0, count, size):
        batch = [images[index] for index in chosen[start : start + size]]
        kinds |= {(each.shape, each.dtype) for each in batch}
        if len(kinds) > 1:
            raise UserError("images to calibrate with must all have one shape and dtype: scale and crop them alike")
        if not all(each.isfinite().all() for each in batch):
            raise UserError("an image to calibrate with holds infinite numbers or NaN: leave it out")
        yield torch.stack(batch)
