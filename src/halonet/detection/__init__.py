"""Detection and instance segmentation: Mask R-CNN on local attention."""

from halonet.detection.checkpoint import load_detector as load_detector
from halonet.detection.data import DetectionData as DetectionData
from halonet.detection.evaluation import evaluate as evaluate
from halonet.detection.from_data import fill_in as fill_in
from halonet.detection.mask_rcnn import (
    DetectorConfig as DetectorConfig,
    FasterRCNN as FasterRCNN,
    MaskRCNN as MaskRCNN,
    create_detector as create_detector,
)
from halonet.detection.module import Detector as Detector
from halonet.detection.prediction import predict as predict
from halonet.detection.recipe import (
    DetectionDataSection as DetectionDataSection,
    DetectionRecipe as DetectionRecipe,
    DetectorSection as DetectorSection,
    StepSchedule as StepSchedule,
)
from halonet.engine.run import resume as resume, train as train
