"""Detectors from checkpoints: read whole, or as the beginning of another training."""

import warnings
from pathlib import Path
from typing import Any

from halonet.data.detection import DetectionAugmentation
from halonet.detection.mask_rcnn import DetectorConfig, FasterRCNN, MaskRCNN
from halonet.errors import UserError, UserNote
from halonet.models import HaloNet, HaloNetConfig
from halonet.training.weights import load_state, read_weights, with_tuples

# The layers whose shape depends on the classes.
_CLASS_LAYERS = ("roi_heads.box_predictor.", "roi_heads.mask_predictor.mask_fcn_logits.")
# The layers that draw masks, which a detector of boxes lacks.
_MASK_LAYERS = "roi_heads.mask_"
_DETECTORS = {kind.__name__: kind for kind in (MaskRCNN, FasterRCNN)}
# What a pyramid takes off a classifier.
_HEAD = ("classifier.", "final.")


def load_detector(path: str | Path) -> tuple[FasterRCNN, dict[str, Any]]:
    """Build the detector that a checkpoint holds, in evaluation mode on the CPU.

    Args:
        path: A run folder, a `model.safetensors` or a `.ckpt`. Of a checkpoint of a run with EMA, the average.

    Returns:
        The detector, which is a `MaskRCNN` if it draws masks, and what is known of it: `config`, `num_classes`,
        `in_chans`, `class_names`, `category_ids`, `preprocessing` (the fields of a `DetectionAugmentation`), `data`,
        `hold_out` and `test_split`.

    Raises:
        UserError: The file is missing, truncated, no checkpoint of a detector, or holds pickled code.
    """
    state, information, path = read_weights(path)
    if information.get("network") not in _DETECTORS:
        kind = information.get("network", "something unknown")
        raise UserError(
            f"{path} holds no detector (it was saved from a {kind}): "
            "only checkpoints written by `halonet detect train` do; train one from a classifier's with --init"
        )
    try:
        fields = dict(information["config"])
        backbone = HaloNetConfig(**with_tuples(fields.pop("backbone")))
        config = DetectorConfig(backbone=backbone, **with_tuples(fields))
        augmentation = DetectionAugmentation(**with_tuples(information["preprocessing"]))
        detector = _DETECTORS[information["network"]](config, information["num_classes"], augmentation)
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(f"{path} describes a detector that this version of halonet cannot build: {error}") from error
    load_state(detector, state, str(path))
    return detector.eval(), information


def initialize(detector: FasterRCNN, path: str | Path) -> None:
    """Let a detector begin with the weights of a checkpoint, in place.

    Args:
        detector: Freshly initialized.
        path: A checkpoint of a classifier, whose stem and stages become the backbone's, or of a detector, all of whose
            weights are taken; if its classes are others in number, the layers that tell classes apart start anew, and
            so do those that draw masks if it had none; a `UserNote` warning says so.

    Raises:
        UserError: The file is missing, truncated, no checkpoint of this package, or from another network.
    """
    state, information, path = read_weights(path)
    kind = information.get("network")
    if kind == HaloNet.__name__:
        trunk = {name: tensor for name, tensor in state.items() if not name.startswith(_HEAD)}
        load_state(detector.pyramid.body, trunk, str(path))
        return
    if kind not in _DETECTORS:
        kind = kind or "something unknown"
        raise UserError(f"{path} holds neither a HaloNet nor a detector of this package (it was saved from a {kind})")
    own = detector.state_dict()
    had_masks = any(name.startswith(_MASK_LAYERS) for name in state)
    if had_masks and not detector.has_masks:
        state = {name: tensor for name, tensor in state.items() if not name.startswith(_MASK_LAYERS)}
    elif detector.has_masks and not had_masks:
        state |= {name: tensor for name, tensor in own.items() if name.startswith(_MASK_LAYERS)}
        warnings.warn(UserNote(f"{path} draws no masks: the layers that do start anew"), stacklevel=2)
    if information["num_classes"] != detector.num_classes:
        state |= {name: tensor for name, tensor in own.items() if name.startswith(_CLASS_LAYERS)}
        note = (
            f"{path} tells {information['num_classes']} classes apart and the data has {detector.num_classes}: "
            "the layers that name boxes and draw masks start anew"
        )
        warnings.warn(UserNote(note), stacklevel=2)
    load_state(detector, state, str(path))
