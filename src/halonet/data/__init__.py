"""Images for training and evaluation: sources, transforms, and datasets with reproducible randomness."""

from halonet.data.classification.dataset import KeyedDataset
from halonet.data.classification.image_source import ImageSource
from halonet.data.classification.sources import available_splits, load_source
from halonet.data.classification.transforms import AugmentationConfig, build_transform
from halonet.data.detection.coco import (
    CocoImages,
    DetectionSource,
    available_detection_splits,
    load_detection_source,
)
from halonet.data.detection.dataset import DetectionAugmentation, KeyedDetections, build_detection_transform
from halonet.data.images import find_images, open_image
from halonet.data.randomness import derive_seed

__all__ = [
    "AugmentationConfig",
    "CocoImages",
    "DetectionAugmentation",
    "DetectionSource",
    "ImageSource",
    "KeyedDataset",
    "KeyedDetections",
    "available_detection_splits",
    "available_splits",
    "build_detection_transform",
    "build_transform",
    "derive_seed",
    "find_images",
    "load_detection_source",
    "load_source",
    "open_image",
]
