"""Time the detectors of the paper's Table 5, with their backbones and pyramids alone: what does attention cost?

Weights are random: each detector proposes and scores 1,000 boxes, but none passes the threshold, so no masks are
drawn. In a trained detector, attention is a smaller part.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torchvision

from halonet.benchmark.record import Row
from halonet.benchmark.settings import Settings
from halonet.benchmark.timing import make_step, time_in_turns
from halonet.detection import create_detector

BACKBONES = ["resnet50_twin", "r50se", "r50se_halo_b8", "r50se_halo_b32", "r101se", "r101se_halo_b8"]
PEER = "torchvision maskrcnn_resnet50_fpn"
HEIGHT, WIDTH = 800, 1333


def measure(backbones: list[str], settings: Settings, height: int = HEIGHT, width: int = WIDTH) -> Iterator[Row]:
    """Time all detectors in turns, and then their backbones; yield a row for each."""
    detectors: dict[str, Any] = {}
    for name in backbones:
        torch.manual_seed(0)
        detectors[name] = create_detector(name, 80)
    torch.manual_seed(0)
    detectors[PEER] = torchvision.models.detection.maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=81
    )
    images = [
        torch.rand(3, height, width, generator=torch.Generator().manual_seed(index)).to(settings.device)
        for index in range(settings.batch)
    ]
    for detector in detectors.values():
        detector.eval().to(settings.device)
    for case, prepare in (("detector", _whole), ("backbone", _backbone)):
        steps = {name: make_step(prepare(each, images), [], training=False) for name, each in detectors.items()}
        yield Row(
            case=f"{case}, {height} x {width} px",
            task="inference",
            baseline=backbones[0],
            facts={"height": height, "width": width, "batch": settings.batch},
            milliseconds=time_in_turns(steps, settings),
        )


def _whole(detector: Any, images: list[torch.Tensor]) -> Callable[[], Any]:
    return lambda: detector(images)


def _backbone(detector: Any, images: list[torch.Tensor]) -> Callable[[], Any]:
    return lambda: detector.backbone(detector.transform(images)[0].tensors)
