"""Exports classifiers and feature extractors: traces, writes, and verifies what was written."""

import copy
import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import halonet
from halonet.complaints import wrong
from halonet.engine.files import check_output_file, explain_full_disk
from halonet.errors import ExportError, UserError
from halonet.export.formats import FORMATS, Run, as_list, find_format
from halonet.export.int8 import Agreement, Images, check_calibration, verify_int8, write_int8
from halonet.export.portable import copy_network
from halonet.export.program import Bounds, Deployable, LeastSizeError, export_module, refuse_plain_timm, trace

# Of the largest output.
TOLERANCE = 1e-3  # rounding makes about 1e-6
MOST_ROUNDING = 2e-2  # where a network magnifies rounding


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: The file.
        format: A name of `FORMATS`.
        bytes: Size of the file.
        seconds: Taken to trace and to write.
        cpu_seconds: Likewise, of all threads and compilers; other work on the machine does not change it.
        verified: Sizes of the images [batch, height, width] at which the file gave what the network gives.
        error: The largest difference, relative to the largest output.
        agreement: How an int8 file compares with the network; None for other files, and if it was not verified.
    """

    path: Path
    format: str
    bytes: int
    seconds: float
    cpu_seconds: float
    verified: tuple[tuple[int, int, int], ...]
    error: float
    agreement: Agreement | None = None


def export_network(
    network: nn.Module,
    path: str | Path,
    *,
    format: str | None = None,
    normalize: bool = False,
    softmax: bool = False,
    features: bool = False,
    class_names: Sequence[str] = (),
    preprocessing: Mapping[str, Any] | None = None,
    bounds: Bounds | None = None,
    calibration: Images | None = None,
    verify: bool = True,
) -> Exported:
    """Write a classifier or a feature extractor as a file that takes any batch of images of any size.

    The input is `image`, float32 [batch, channels, height, width]: normalized, or with values in [0, 1] if `normalize`
    is set. The output is `logits` or `probabilities` [batch, classes], or the maps `features_0`, `features_1`, ...
    Metadata holds `class_names`, `preprocessing` (JSON) and `halonet_version`. Scaling and cropping are left to the
    caller, as `preprocessing` says.

    Args:
        network: A `HaloNet`, a feature extractor made of one, or a network of timm after `halonet.accelerate`; not
            changed.
        path: The file; replaced in one step.
        format: A name of `FORMATS`; None takes the one of the suffix, .onnx or .pt2.
        normalize: Whether the file subtracts the mean and divides by the standard deviation of `preprocessing`.
        softmax: Whether the outputs are probabilities.
        features: Whether the outputs are the feature maps of all levels of a `HaloNet`.
        class_names: In the order of the outputs; none, or one per class.
        preprocessing: What images go through, in timm's terms: `mean`, `std`, `input_size`, `crop_pct`,
            `interpolation`; None takes the `pretrained_cfg` of the network.
        bounds: Of the sizes; None takes all that the network takes.
        calibration: Images as the file takes them; with some, convolutions and linear layers compute in int8. At most
            256 are read, evenly spaced.
        verify: Whether to compare the file with the network, at sizes that the export did not see.

    Returns:
        What was written, and how it was verified.

    Raises:
        UserError: The file cannot be written, which is checked first; a package or compiler is missing; names or
            preprocessing do not fit the network.
        ExportError: The file gives something else than the network; it is not kept.
    """
    path = Path(path)
    name = find_format(format, path)
    check_output_file(path)
    if FORMATS[name].traced_side and bounds is not None and bounds.max_size is not None:
        raise wrong("max_size", bounds.max_size, f"left out for {name}, whose programs take images of any size")
    refuse_plain_timm(network)
    channels = getattr(network, "in_chans", None) or _channels(network)
    preprocessing = dict(preprocessing or _describe(network))
    _check(network, class_names, preprocessing, channels, normalize)
    network = copy_network(network)
    asked, bounds = bounds, bounds or Bounds(min_size=_least_side(network, channels))
    if calibration is not None:
        check_calibration(calibration, name, channels, bounds)
    numbers = {"mean": preprocessing["mean"], "std": preprocessing["std"]} if normalize else {}
    deployable = Deployable(network, softmax=softmax, features=features, **numbers).eval()
    side = _side(preprocessing)
    traced_side = FORMATS[name].traced_side or side
    outputs = _name_outputs(deployable, channels, max(side, bounds.min_size), softmax)
    metadata = {
        "class_names": list(class_names),
        "preprocessing": preprocessing | {"channels": channels, "done_inside": ["normalize"] if normalize else []},
        "outputs": outputs,
        "halonet_version": halonet.__version__,
    }
    start, cpu_start = time.perf_counter(), _cpu_seconds()
    try:
        program = trace(deployable, channels, traced_side, bounds)
    except LeastSizeError as error:
        if asked is not None:
            raise
        bounds = Bounds(min_size=error.least)
        program = trace(deployable, channels, traced_side, bounds)
    with explain_full_disk(path), tempfile.TemporaryDirectory(prefix=f".{path.stem}", dir=path.parent) as folder:
        written = Path(folder) / path.name
        if calibration is None:
            FORMATS[name].write(program, metadata, outputs, written)
        else:
            export = partial(export_module, channels=channels, side=side, bounds=bounds)
            write_int8(name, program, metadata, outputs, written, calibration, export)
        seconds, cpu_seconds = time.perf_counter() - start, _cpu_seconds() - cpu_start
        sizes = verification_sizes(side, bounds) if verify else ()
        error, agreement = 0.0, None
        if verify and calibration is not None:
            agreement = verify_int8(FORMATS[name].open(written), deployable, calibration, sizes, path)
            error = agreement.error
        elif verify:
            error = verify_file(FORMATS[name].open(written), deployable, channels, sizes, path)
        size = written.stat().st_size
        os.replace(written, path)
    return Exported(path, name, size, seconds, cpu_seconds, tuple(sizes), error, agreement)


def verification_sizes(side: int, bounds: Bounds) -> list[tuple[int, int, int]]:
    """Choose sizes [batch, height, width] that the export did not see: tiny, oblong, 1.5 times as large."""
    most = bounds.max_size or 2 * side + bounds.min_size
    wanted = [(1, 1, 3), (3, side * 2 // 3 + 1, side // 3 + 2), (1, side * 3 // 2 + 1, side * 3 // 2 + 2)]
    return [
        (
            min(batch, bounds.max_batch or batch),
            min(max(height, bounds.min_size), most),
            min(max(width, bounds.min_size), most),
        )
        for batch, height, width in wanted
    ]


def verify_file(
    run: Run, network: nn.Module, channels: int, sizes: Sequence[tuple[int, int, int]], path: Path
) -> float:
    """Compare what a file gives with what a network gives, on random images; return the largest relative difference.

    Raises:
        ExportError: They differ, by more than a network that magnifies rounding differs from itself in float64.
    """
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for batch, height, width in sizes:
        image = torch.rand(batch, channels, height, width, generator=generator)
        with torch.no_grad():
            expected = as_list(network(image))
        found = run(image)
        for ours, theirs in zip(expected, found, strict=True):
            error = float("inf") if ours.shape != theirs.shape else _difference(ours, theirs)
            if not error <= TOLERANCE and not _is_rounding(network, image, expected, found):
                raise ExportError(
                    f"{path} was not written: it would give something else than the network for {batch} images of "
                    f"{height} x {width} pixels (difference {error:.1g} of the largest output); please report this, "
                    "with the network"
                )
            largest = max(largest, error)
    return largest


def _difference(expected: Tensor, found: Tensor) -> float:
    return float((expected - found).abs().max() / expected.abs().max().clamp(min=1e-6))


def _is_rounding(network: nn.Module, image: Tensor, expected: Sequence[Tensor], found: Sequence[Tensor]) -> bool:
    """Whether a file is about as close to the network in float64 as the network itself is, and both are close."""
    with torch.no_grad():
        exact = as_list(copy.deepcopy(network).double()(image.double()))
    if [each.shape for each in exact] != [each.shape for each in found]:
        return False
    own = max(map(_difference, exact, expected))
    return max(map(_difference, exact, found)) <= min(4 * own, MOST_ROUNDING)


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _channels(network: nn.Module) -> int:
    """Channels of the images of a network that does not say: those of its first convolution."""
    convolution = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    if convolution is None:
        raise UserError(f"{type(network).__name__} has no convolution, so the channels of its images are unknown")
    return convolution.in_channels


def _describe(network: nn.Module) -> dict[str, Any]:
    """Preprocessing as timm's `pretrained_cfg` has it."""
    config = getattr(network, "pretrained_cfg", None) or {}
    names = ("input_size", "mean", "std", "crop_pct", "interpolation")
    return {name: config[name] for name in names if config.get(name) is not None}


def _side(preprocessing: Mapping[str, Any]) -> int:
    """Side in pixels of the images that a network is made for."""
    return int(preprocessing.get("image_size") or preprocessing.get("input_size", (3, 224, 224))[-1])


def _check(
    network: nn.Module, class_names: Sequence[str], preprocessing: Mapping[str, Any], channels: int, normalize: bool
) -> None:
    num_classes = getattr(network, "num_classes", None)
    if class_names and num_classes and len(class_names) != num_classes:
        raise UserError(f"{len(class_names)} class names for {num_classes} classes; give one a class, or none")
    if normalize:
        for name, least, words in (("mean", -math.inf, "numbers"), ("std", 0.0, "positive numbers")):
            numbers = preprocessing.get(name)
            if not (
                isinstance(numbers, Sequence)
                and len(numbers) == channels
                and all(isinstance(each, int | float) and least < each < math.inf for each in numbers)
            ):
                raise UserError(
                    f"normalizing needs a {name} of {channels} {words}, but preprocessing has {str(numbers)[:200]}"
                )


def _least_side(network: nn.Module, channels: int) -> int:
    """The smallest side in pixels, a power of 2, that a network takes; timm's may pool more pixels than there are.

    Raises:
        UserError: It takes none, as if it has layers for one size.
    """
    for side in (1, 2, 4, 8, 16, 32, 64, 128):
        try:
            with torch.no_grad():
                network(torch.zeros(1, channels, side, 2 * side))
        except Exception:  # each network refuses sizes in its own way
            continue
        return side
    raise UserError(
        f"{type(network).__name__} fails on images of 1 x 2 to 128 x 256 pixels: only networks that take images of any "
        "size can be exported"
    )


def _name_outputs(network: nn.Module, channels: int, side: int, softmax: bool) -> list[str]:
    with torch.no_grad():
        outputs = network(torch.zeros(1, channels, side, side))
    if not isinstance(outputs, Tensor):
        if softmax:
            raise UserError("a feature extractor has no probabilities: leave softmax out")
        return [f"features_{index}" for index in range(len(outputs))]
    if outputs.dim() != 2:
        return ["features"]
    return ["probabilities" if softmax else "logits"]
