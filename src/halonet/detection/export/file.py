"""Exports detectors as ONNX files."""

import copy
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim

import halonet
from halonet.detection.export.exportable import ExportableDetector
from halonet.detection.export.parts import make_translations
from halonet.detection.export.verification import verify_detector
from halonet.detection.mask_rcnn import SIZE_DIVISOR, FasterRCNN
from halonet.engine.files import check_output_file, write_atomically
from halonet.errors import UserError
from halonet.export.onnx_model import set_metadata, translate
from halonet.export.portable import make_portable
from halonet.installation import command_for_extra

EXAMPLE_SIZE = (320, 256)


def export_detector(
    detector: FasterRCNN, path: str | Path, *, class_names: Sequence[str] = (), verify: bool = True
) -> Path:
    """Write a detector as one ONNX file that takes images of any size.

    The input is `image`, float32 [channels, height, width] with values in [0, 1]; the file normalizes and scales it.
    The outputs are `boxes` [detections, 4], `labels` [detections], `scores` [detections] and, for a Mask R-CNN, `masks`
    [detections, 1, height, width], as the detector returns them. Metadata holds `class_names` (JSON, in the order of
    the labels), `preprocessing` (JSON: what the file expects and does) and `halonet_version`.

    Args:
        detector: Not changed; the work is done on a copy on the CPU.
        path: The file; replaced in one step.
        class_names: In the order of the labels; none, or one per class.
        verify: Whether to check first that onnxruntime finds what the detector finds, at three sizes.

    Returns:
        The path.

    Raises:
        UserError: The file cannot be written, which is checked first; a package is missing, the number of names is not
            that of the classes, or the disk is full.
        ExportError: onnxruntime finds something else.
    """
    path = Path(path)
    check_output_file(path)
    for package in ("onnx", "onnxscript", *(["onnxruntime"] if verify else [])):
        if find_spec(package) is None:
            raise UserError(f"exporting needs {package}: {command_for_extra('export')}")
    if class_names and len(class_names) != detector.num_classes:
        raise UserError(f"{len(class_names)} class names for {detector.num_classes} classes; give one a class, or none")
    import onnx
    import onnx_ir

    detector = copy.deepcopy(detector).cpu().float().eval()
    with torch.no_grad():
        translated = _translate(detector)
        transform: Any = detector.transform
        preprocessing = {
            "channels": {1: "gray", 3: "RGB"}.get(detector.in_chans, str(detector.in_chans)),
            "range": [0, 1],
            "done_inside": {
                "mean": transform.image_mean,
                "std": transform.image_std,
                "min_size": transform.min_size[-1],
                "max_size": transform.max_size,
                "size_divisor": SIZE_DIVISOR,
            },
        }
        metadata = {
            "class_names": list(class_names),
            "preprocessing": preprocessing,
            "halonet_version": halonet.__version__,
        }
        set_metadata(translated, metadata)
        model = onnx_ir.to_proto(translated)
        content = model.SerializeToString()
        onnx.checker.check_model(content, full_check=True)
        if verify:
            verify_detector(detector, model)
    write_atomically(path, lambda file: file.write(content))
    return path


def _translate(detector: FasterRCNN) -> Any:
    """Export the detector as an `onnx_ir.Model`."""
    image = torch.zeros(detector.in_chans, *EXAMPLE_SIZE)
    exportable = ExportableDetector(detector).eval()
    program = torch.export.export(
        make_portable(exportable), (image,), dynamic_shapes={"image": {1: Dim.DYNAMIC, 2: Dim.DYNAMIC}}
    )
    model = translate(program, {"image": {1: "height", 2: "width"}}, exportable.outputs, make_translations())
    for output in model.graph.outputs:
        output.shape[0] = "detections"
    return model
