"""Detectors from checkpoints: loaded complete, or as the start of another training."""

import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

from halonet.complaints import shown
from halonet.data.detection.dataset import DetectionAugmentation
from halonet.detection.mask_rcnn import DetectorConfig, FasterRCNN, MaskRCNN
from halonet.engine.metadata import Metadata, read_metadata, saved_from, without_nulls
from halonet.engine.weights import build_checked, load_state, read_weights
from halonet.errors import UserError, UserNote
from halonet.models import HaloNet
from halonet.models.config import Classes
from halonet.rules import Text, within
from halonet.schemas import record

# The layers whose shape depends on the classes.
_CLASS_LAYERS = ("roi_heads.box_predictor.", "roi_heads.mask_predictor.mask_fcn_logits.")
# The layers for masks, which a Faster R-CNN lacks.
_MASK_LAYERS = "roi_heads.mask_"
DETECTORS = {kind.__name__: kind for kind in (MaskRCNN, FasterRCNN)}
# The layers of a classifier that a pyramid removes.
_HEAD = ("classifier.", "final.")


@record
class DetectorMetadata(Metadata):
    """What a checkpoint says of a detector, see `Metadata`; labels are counted from 1.

    Attributes:
        category_ids: COCO's, in the order of the labels.
    """

    network: Literal["MaskRCNN", "FasterRCNN"]
    config: DetectorConfig
    num_classes: Classes
    class_names: tuple[Text, ...]
    category_ids: tuple[Annotated[int, within(least=-(2**53), most=2**53)], ...]
    preprocessing: DetectionAugmentation

    def _sizes(self) -> tuple[Any, ...]:
        return self.preprocessing.min_size, self.preprocessing.max_size, self.preprocessing.jitter_size

    def _rules(self) -> dict[str, tuple[bool, str]]:
        fits = len(self.category_ids) == len(set(self.category_ids)) == self.num_classes
        return {"category_ids": (fits, f"{self.num_classes:,} different numbers")}


def load_detector(path: str | Path) -> tuple[FasterRCNN, dict[str, Any]]:
    """Build the detector of a checkpoint, in evaluation mode on the CPU.

    Args:
        path: A run folder, a `model.safetensors` or a `.ckpt`. If the run has an EMA, its average is read.

    Returns:
        The detector, a `MaskRCNN` if it draws masks, and its description without null values: `config`, `num_classes`,
        `in_chans`, `class_names`, `category_ids`, `preprocessing` (the fields of a `DetectionAugmentation`), `data`,
        `hold_out` and `test_split`.

    Raises:
        UserError: The file is missing, truncated, not a checkpoint of a detector, or holds pickled code.
    """
    state, information, path = read_weights(path)
    kind = saved_from(information)
    if kind not in DETECTORS:
        raise UserError(
            f"{path} holds no detector (it was saved from {f'a {kind}' if kind else 'something unknown'}): "
            "only checkpoints written by `halonet detect train` do; train one from a classifier's with --init"
        )
    metadata = read_metadata(DetectorMetadata, information, str(path))

    def build() -> FasterRCNN:
        return DETECTORS[metadata.network](metadata.config, metadata.num_classes, metadata.preprocessing)

    return build_checked(build, state, str(path)), without_nulls(information)


def initialize(detector: FasterRCNN, path: str | Path) -> None:
    """Load the weights of a checkpoint into a new detector, in place.

    Args:
        detector: Freshly initialized.
        path: A checkpoint of a classifier, whose stem and stages initialize the backbone, or of a detector. The layers
            for classes keep their initial weights if the number of classes differs, and those for masks if the
            checkpoint has none; a `UserNote` warning says so.

    Raises:
        UserError: The file is missing, truncated, not a checkpoint of this package, or from another network.
    """
    state, information, path = read_weights(path)
    kind = saved_from(information)
    if kind == HaloNet.__name__:
        trunk = {name: tensor for name, tensor in state.items() if not name.startswith(_HEAD)}
        load_state(detector.pyramid.body, trunk, str(path))
        return
    if kind not in DETECTORS:
        what = f"a {kind}" if kind else "something unknown"
        raise UserError(f"{path} holds neither a HaloNet nor a detector of this package (it was saved from {what})")
    own = detector.state_dict()
    had_masks = any(name.startswith(_MASK_LAYERS) for name in state)
    if had_masks and not detector.has_masks:
        state = {name: tensor for name, tensor in state.items() if not name.startswith(_MASK_LAYERS)}
    elif detector.has_masks and not had_masks:
        state |= {name: tensor for name, tensor in own.items() if name.startswith(_MASK_LAYERS)}
        warnings.warn(UserNote(f"{path} draws no masks: the layers for masks start from random weights"), stacklevel=2)
    num_classes = information.get("num_classes")
    if num_classes != detector.num_classes:
        state |= {name: tensor for name, tensor in own.items() if name.startswith(_CLASS_LAYERS)}
        note = (
            f"{path} tells {shown(num_classes)} classes apart and the data has {detector.num_classes}: "
            "the layers that name boxes and draw masks start anew"
        )
        warnings.warn(UserNote(note), stacklevel=2)
    load_state(detector, state, str(path))
