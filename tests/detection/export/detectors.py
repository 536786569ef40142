from typing import Any

import torch
from torch import nn

from halonet.data.detection.dataset import DetectionAugmentation
from halonet.detection.mask_rcnn import FasterRCNN, create_detector

MIN_SIZE, MAX_SIZE = 128, 192
TINY = {"depths": (1, 1), "num_heads": (2, 2), "stem_width": 16, "width_ratio": 0.25}
NARROW = {"width_ratio": 0.125, "stem_width": 16, "depths": (1, 1, 1, 1)}
BACKBONES = {"tiny28": TINY, "r50se_halo_b8": NARROW, "r50se_halo_b32": NARROW}
BOTH_KINDS = TINY | {"convolution_stages": (1,), "squeeze_excitation_stages": (1,)}
# Enlarged, to a shorter side that is 127 in float64 and 128 in float32; reduced; limited by the longer side. All need
# little padding, where the scores of an untrained detector would be equal and in arbitrary order.
SIZES = [(98, 146), (301, 211), (109, 333), (250, 370)]


def make_detector(backbone: str = "tiny28", overrides: dict[str, Any] = BOTH_KINDS, masks: bool = True) -> FasterRCNN:
    """Make an untrained detector whose detections are as certain and varied as those of a trained one.

    It has few proposals: among many, some would be so close to a threshold that rounding decides.
    """
    augmentation = DetectionAugmentation(min_size=MIN_SIZE, max_size=MAX_SIZE, train_min_sizes=(MIN_SIZE,))
    narrow = {"pyramid_channels": 16, "box_channels": 32, "mask_channels": 8}
    detector = create_detector(backbone, 3, augmentation, masks=masks, backbone_overrides=overrides, **narrow).eval()
    heads: Any = detector.roi_heads
    rpn: Any = detector.rpn
    rpn._pre_nms_top_n, rpn._post_nms_top_n = {"testing": 100}, {"testing": 50}
    deviations = {
        rpn.head.cls_logits: 2.0,
        rpn.head.bbox_pred: 0.3,
        heads.box_predictor.cls_score: 2.0,
        heads.box_predictor.bbox_pred: 1.0,
    }
    if masks:
        deviations[heads.mask_predictor.mask_fcn_logits] = 2.0
    seen = set()

    def spread(layer: nn.Module, inputs: Any, output: Any) -> Any:
        if layer in seen:
            return None
        seen.add(layer)
        others = [axis for axis in range(output.ndim) if axis != 1]
        factors = deviations[layer] / output.std(others)
        layer.weight.mul_(factors.view(-1, *[1] * (layer.weight.ndim - 1)))
        layer.bias.copy_((layer.bias - output.mean(others)) * factors)
        return layer(*inputs)

    hooks = [layer.register_forward_hook(spread) for layer in deviations]
    with torch.no_grad():
        for module in detector.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        detector([torch.rand(3, 128, 128)])
    for hook in hooks:
        hook.remove()
    return detector.requires_grad_(False)
