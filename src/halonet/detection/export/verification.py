"""Compares what a runtime finds in an image with what the detector finds."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from halonet.detection.export.exportable import OUTPUTS, THRESHOLD, ExportableDetector
from halonet.detection.mask_rcnn import FasterRCNN
from halonet.errors import ExportError
from halonet.export.onnx_model import open_session

# How far rounding in a runtime may move a detection, and what share of them it may add or remove.
BOX_TOLERANCE = 1e-3  # of the image's longer side
SCORE_TOLERANCE = 1e-2
MASK_TOLERANCE = 5e-2  # of the mask's area
DIFFERENT = 0.05


def verify_detector(detector: FasterRCNN, model: Any) -> None:
    """Compare at three sizes: enlarged, reduced, and as far as `max_size` allows.

    Both score thresholds are set to 0, because a trained detector may find nothing in the test images.

    Args:
        detector: On the CPU, in evaluation mode; its threshold stays 0.
        model: The `onnx.ModelProto`; likewise.

    Raises:
        ExportError: onnxruntime finds something else.
    """
    import onnx
    import onnxruntime

    for initializer in model.graph.initializer:
        if initializer.name == THRESHOLD:
            initializer.CopyFrom(onnx.numpy_helper.from_array(np.zeros((), np.float32), THRESHOLD))
    session = open_session(model.SerializeToString())
    heads: Any = detector.roi_heads
    heads.score_thresh = 0.0
    transform: Any = detector.transform
    shorter, longer = transform.min_size[-1], transform.max_size
    generator = torch.Generator().manual_seed(0)
    for height, width in (
        (shorter * 3 // 4 + 1, shorter * 5 // 8 + 1),
        (shorter * 9 // 8 + 1, shorter * 5 // 4 + 1),
        (shorter // 4 + 1, longer // 2 + 1),
    ):
        # Blobs with noise, because flat areas have many equal scores, whose order is arbitrary.
        cells = torch.rand(1, detector.in_chans, height // 32 + 2, width // 32 + 2, generator=generator)
        noise = torch.rand(detector.in_chans, height, width, generator=generator)
        image = 0.9 * nn.functional.interpolate(cells, (height, width), mode="bilinear")[0] + 0.1 * noise
        expected = detector([image])[0]
        found = _name(torch.as_tensor(each) for each in session.run(None, {"image": image.numpy()}))
        different = compare_detections(expected, found, max(height, width))
        allowed = DIFFERENT * len(expected["boxes"])
        if different > allowed:
            # Equal scores, as in padding, have an arbitrary order in the detector, but not in its exportable form.
            again = _name(ExportableDetector(detector)(image))
            different = min(different, compare_detections(again, found, max(height, width)))
        if different > allowed:
            raise ExportError(
                f"onnxruntime {onnxruntime.__version__} does not find what the detector finds in an image of {height} x"
                f" {width} pixels: of {len(expected['boxes'])} and {len(found['boxes'])} detections {different} are not"
                " the other's. The file was not written; verify=False would write it all the same."
            )


def _name(outputs: Iterable[Tensor]) -> dict[str, Tensor]:
    return dict(zip(OUTPUTS, outputs, strict=False))  # a Faster R-CNN has no masks


def compare_detections(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], longer_side: int) -> int:
    """Count the detections of either side that the other lacks.

    Two detections are equal if their labels are equal and their boxes, scores and masks are nearly so: within 1/1,000
    of the longer side of the image, 0.01, and 5 % of the area of the mask.

    Args:
        expected: What a detector returns for an image: `boxes`, `labels`, `scores` and, for a Mask R-CNN, `masks`.
        found: The same from a runtime.
        longer_side: Of the image, in pixels.
    """
    if not len(expected["boxes"]) or not len(found["boxes"]):
        return len(expected["boxes"]) + len(found["boxes"])
    tolerance = BOX_TOLERANCE * longer_side
    same = (expected["boxes"][:, None] - found["boxes"]).abs().amax(2) <= tolerance
    same &= (expected["scores"][:, None] - found["scores"]).abs() <= SCORE_TOLERANCE
    same &= expected["labels"][:, None] == found["labels"]
    for one, other in same.nonzero().tolist() if "masks" in expected else ():
        first, second = expected["masks"][one], found["masks"][other]
        same[one, other] = (first - second).abs().sum() <= MASK_TOLERANCE * torch.maximum(first, second).sum()
    return int((~same.any(0)).sum() + (~same.any(1)).sum())
