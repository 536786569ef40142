"""Detection and instance segmentation: Mask R-CNN on local attention. Names are imported when first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from halonet.detection.checkpoint import load_detector
    from halonet.detection.datamodule import DetectionData
    from halonet.detection.detector import Detector
    from halonet.detection.evaluation import evaluate
    from halonet.detection.from_data import fill_in
    from halonet.detection.mask_rcnn import DetectorConfig, FasterRCNN, MaskRCNN, create_detector
    from halonet.detection.prediction import predict
    from halonet.detection.recipe import DetectionRecipe
    from halonet.detection.run import build_data, build_detector, resume, train

__all__ = [
    "DetectionData",
    "DetectionRecipe",
    "Detector",
    "DetectorConfig",
    "FasterRCNN",
    "MaskRCNN",
    "build_data",
    "build_detector",
    "create_detector",
    "evaluate",
    "fill_in",
    "load_detector",
    "predict",
    "resume",
    "train",
]

_HOMES = {
    "DetectionData": "datamodule",
    "DetectionRecipe": "recipe",
    "Detector": "detector",
    **dict.fromkeys(("DetectorConfig", "FasterRCNN", "MaskRCNN", "create_detector"), "mask_rcnn"),
    **dict.fromkeys(("build_data", "build_detector", "resume", "train"), "run"),
    "evaluate": "evaluation",
    "fill_in": "from_data",
    "load_detector": "checkpoint",
    "predict": "prediction",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
