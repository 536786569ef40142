"""`halonet export`."""

import argparse
import dataclasses
from collections.abc import Sequence

from halonet.classification.checkpoint import data_config, load_checkpoint
from halonet.classification.evaluation import preprocessing
from halonet.classification.hub import save_to_hub_folder
from halonet.complaints import must_be_one_of
from halonet.data import AugmentationConfig, build_transform, find_images
from halonet.detection.checkpoint import DETECTORS, load_detector
from halonet.detection.export.file import export_detector
from halonet.engine.files import check_output_file
from halonet.engine.metadata import saved_from
from halonet.engine.weights import read_weights
from halonet.export import FORMATS, Bounds, Exported, ImageFiles, export_network
from halonet.export.formats import find_format
from halonet_cli.parser import UsageError

CLASSIFIER_FLAGS = ("normalize", "softmax", "features", "int8", "min_size", "max_size")


def run_export(options: argparse.Namespace) -> None:
    """Export, check, and print what was written."""
    if options.format == "hub":
        refuse(options, CLASSIFIER_FLAGS, "--format hub writes the network as it is")
        print(f"written to {save_to_hub_folder(options.checkpoint, options.file)}")
        return
    if options.format not in (None, *FORMATS):
        raise must_be_one_of("format", options.format, [*FORMATS, "hub"]).error()
    bounds = Bounds(min_size=options.min_size, max_size=options.max_size)
    find_format(options.format, options.file)
    if options.format == "aoti":
        refuse(options, ["int8"], "--format aoti computes in floating point; choose onnx or pt2 for int8")
    check_output_file(options.file)
    if saved_from(read_weights(options.checkpoint).information) in DETECTORS:
        run_detector_export(options)
        return
    network, information = load_checkpoint(options.checkpoint)
    prepared = preprocessing(information, str(options.checkpoint))
    exported = export_network(
        network,
        options.file,
        format=options.format,
        normalize=options.normalize,
        softmax=options.softmax,
        features=options.features,
        class_names=information.get("class_names") or (),
        preprocessing=data_config(prepared),
        bounds=bounds,
        calibration=calibration_images(options, prepared),
        verify=not options.skip_check,
    )
    print(
        f"written to {exported.path}: {exported.format}, {exported.bytes / 2**20:.1f} MiB, "
        f"in {exported.seconds:.0f} s, {describe_check(exported)}"
    )


def calibration_images(options: argparse.Namespace, prepared: AugmentationConfig) -> ImageFiles | None:
    """Find the images of `--int8`, prepared as the file takes them."""
    if options.int8 is None:
        return None
    if options.normalize:  # which the file does
        zeros, ones = (0.0,) * prepared.in_chans, (1.0,) * prepared.in_chans
        prepared = dataclasses.replace(prepared, mean=zeros, std=ones)
    return ImageFiles(find_images([options.int8]), build_transform(prepared, train=False))


def describe_check(exported: Exported) -> str:
    """Say how a file was compared with the network."""
    if exported.agreement is not None:
        images, labels, error = exported.agreement
        same = "" if labels is None else f"the same label as PyTorch for {100 * labels:.1f} %, "
        return f"int8 calibrated with {images} images: {same}outputs differ by {100 * error:.1f} %"
    if not exported.verified:
        return "not compared"
    sizes = ", ".join(f"{batch} of {height} x {width}" for batch, height, width in exported.verified)
    return f"gives what PyTorch gives for images of other sizes in pixels: {sizes}"


def run_detector_export(options: argparse.Namespace) -> None:
    """Export a detector; of the flags of classifiers none fits."""
    refuse(options, CLASSIFIER_FLAGS, f"{options.checkpoint} is a detector, which does all of its preprocessing")
    if find_format(getattr(options, "format", None), options.file) != "onnx":
        raise UsageError(f"a detector can be exported to onnx only: name the file {options.file.stem}.onnx")
    check_output_file(options.file)
    detector, information = load_detector(options.checkpoint)
    path = export_detector(
        detector, options.file, class_names=information["class_names"], verify=not options.skip_check
    )
    checked = "not compared" if options.skip_check else "gives what PyTorch gives at three other sizes"
    print(f"written to {path}: {path.stat().st_size / 2**20:.1f} MiB, {checked}")


def refuse(options: argparse.Namespace, names: Sequence[str], reason: str) -> None:
    """Refuse flags that are given and do not fit, with the reason."""
    for name in names:
        if getattr(options, name, None) not in (None, False, options.parser.get_default(name)):
            raise UsageError(f"leave out --{name.replace('_', '-')}: {reason}")
