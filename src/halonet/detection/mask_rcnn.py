"""Faster and Mask R-CNN: torchvision's modules on our backbones."""

import dataclasses
import math
from typing import Annotated, Any, Literal

from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import (
    FasterRCNN as TorchvisionFasterRCNN,
    FastRCNNPredictor,
    TwoMLPHead,
)
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper

from halonet.data.detection.dataset import DetectionAugmentation
from halonet.detection.pyramid import Pyramid
from halonet.errors import UserError, unknown_name
from halonet.models import HaloNet, HaloNetConfig, configure
from halonet.models.config import MOST_STAGES, Classes
from halonet.rules import Channels, check_arguments, check_together, within
from halonet.schemas import Plain, record

ASPECT_RATIOS = (0.5, 1.0, 2.0)
SIZE_DIVISOR = 32  # images are padded at the right and bottom to a multiple of it

BatchNorm = Literal["batch", "synchronized", "frozen"]
FrozenStages = Annotated[int, within(least=0, most=MOST_STAGES)]
AnchorScale = Annotated[float, within(least=0.1, most=1_000)]
Samples = Annotated[int, within(least=1, most=100_000)]
ScoreThreshold = Annotated[float, within(least=0, below=1)]


@record
class DetectorSettings:
    """What a Faster or Mask R-CNN is built from, other than its backbone.

    The defaults are torchvision's, which are those of arXiv:1703.06870 with a feature pyramid.

    Attributes:
        batch_norm: In the backbone: "batch" learns and uses the statistics of each batch, "synchronized" does so over
            all processes, "frozen" keeps those of the initial weights.
        frozen_stages: How many of the first stages of the backbone, with the stem, do not learn.
        pyramid_channels: Width of the feature pyramid.
        box_channels: Width of the two layers of the box head.
        mask_channels: Width of the four convolutions of the mask head, if there is one.
        anchor_scale: Side of a square anchor, in pixels of its level.
        anchors_per_image: Anchors that the loss of the proposals samples from an image.
        boxes_per_image: Proposals that the loss of the boxes samples from an image.
        score_threshold: Detections with a lower score are dropped.
        detections_per_image: The most detections that are kept, by score.
    """

    batch_norm: BatchNorm = "batch"
    frozen_stages: FrozenStages = 0
    pyramid_channels: Channels = 256
    box_channels: Channels = 1024
    mask_channels: Channels = 256
    anchor_scale: AnchorScale = 8.0
    anchors_per_image: Samples = 256
    boxes_per_image: Samples = 512
    score_threshold: ScoreThreshold = 0.05
    detections_per_image: Samples = 100


@record
class _Backbone:
    backbone: Annotated[HaloNetConfig, Plain()]


@record
class DetectorConfig(DetectorSettings, _Backbone):  # the fields of the last base come first
    """Everything that a Faster or Mask R-CNN is built from, see `DetectorSettings`.

    Attributes:
        backbone: The HaloNet under the pyramid.

    Raises:
        RuleError: Values break rules; it names all of them.
    """

    def __post_init__(self) -> None:
        check_together(self, fitting_stages(self.frozen_stages, self.backbone))


def fitting_stages(frozen_stages: int, backbone: HaloNetConfig) -> dict[str, tuple[bool, str]]:
    """The rule for how many stages of a backbone can be frozen, see `halonet.rules.check_together`."""
    stages = len(backbone.depths)
    return {"frozen_stages": (frozen_stages <= stages, f"at most {stages}, the stages of the backbone")}


class Preparation(GeneralizedRCNNTransform):
    """Normalizes and batches images, and scales them in evaluation; in training the augmentation has scaled them.

    Attributes:
        pastes_masks: Whether to paste masks into full-size images, as torchvision does, or to leave them small squares.
    """

    pastes_masks = True

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Scale an image [channels, height, width], but only in evaluation."""
        return (image, target) if self.training else super().resize(image, target)

    def postprocess(
        self, result: list[dict[str, Tensor]], image_shapes: list[Any], original_image_sizes: list[Any]
    ) -> list[dict[str, Tensor]]:
        """Scale boxes, and masks if they are pasted, back to the images' original sizes."""
        small = [{} if self.pastes_masks or "masks" not in each else {"masks": each.pop("masks")} for each in result]
        result = super().postprocess(result, image_shapes, original_image_sizes)
        return [each | masks for each, masks in zip(result, small, strict=True)]


class FasterRCNN(TorchvisionFasterRCNN):
    """torchvision's Faster R-CNN on a HaloNet; finds boxes.

    In training it maps (images, targets) to a dictionary of losses, in evaluation images to detections: a list of
    images [channels, height, width] of any sizes with values in [0, 1] to a list of dictionaries with `boxes` [n, 4]
    (x0, y0, x1, y1 in pixels), `labels` [n] (from 1) and `scores` [n].

    Args:
        config: What it is built from.
        num_classes: Number of classes, without background.
        augmentation: How images are scaled and normalized.
    """

    has_masks = False

    def __init__(self, config: DetectorConfig, num_classes: int, augmentation: DetectionAugmentation) -> None:
        body = HaloNet(config.backbone, num_classes=0, in_chans=augmentation.in_chans)
        backbone = Pyramid(
            body,
            config.pyramid_channels,
            frozen_stages=config.frozen_stages,
            frozen_batch_norm=config.batch_norm == "frozen",
        )
        sizes = tuple((config.anchor_scale * reduction,) for reduction in backbone.reductions)
        box_head = TwoMLPHead(config.pyramid_channels * 7**2, config.box_channels)
        box_predictor = FastRCNNPredictor(config.box_channels, num_classes + 1)
        # Initialized before the head of the proposals, as in torchvision's Mask R-CNN.
        mask_parts = self._make_mask_parts(config, num_classes, backbone)
        super().__init__(
            backbone,
            image_mean=list(augmentation.mean),
            image_std=list(augmentation.std),
            rpn_anchor_generator=AnchorGenerator(sizes, (ASPECT_RATIOS,) * len(sizes)),
            rpn_batch_size_per_image=config.anchors_per_image,
            box_roi_pool=make_pool(backbone, 7),
            box_head=box_head,
            box_predictor=box_predictor,
            box_batch_size_per_image=config.boxes_per_image,
            box_score_thresh=config.score_threshold,
            box_detections_per_img=config.detections_per_image,
        )
        for name, part in mask_parts.items():
            setattr(self.roi_heads, name, part)
        self.transform = Preparation(
            augmentation.min_size,
            augmentation.max_size,
            list(augmentation.mean),
            list(augmentation.std),
            size_divisible=SIZE_DIVISOR,
        )
        self.config = config
        self.augmentation = augmentation
        self.num_classes = num_classes
        self.in_chans = augmentation.in_chans

    @property
    def pyramid(self) -> Pyramid:
        """The backbone with its pyramid."""
        assert isinstance(self.backbone, Pyramid)
        return self.backbone

    def no_weight_decay(self) -> set[str]:
        """Name the position tables, which take no weight decay (our choice)."""
        return {f"backbone.body.{name}" for name in self.pyramid.body.no_weight_decay()}

    def detect(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """Detect in evaluation mode as a call does, but without pasting masks: those of a photo can take gigabytes.

        Returns:
            As in a call, but `masks` are [n, 1, 28, 28], each to be stretched over its box.
        """
        assert isinstance(self.transform, Preparation)
        self.transform.pastes_masks = False
        try:
            return self(images)
        finally:
            self.transform.pastes_masks = True

    def _make_mask_parts(self, config: DetectorConfig, num_classes: int, backbone: Pyramid) -> dict[str, nn.Module]:
        """The parts that draw masks, by their names in torchvision's `RoIHeads`."""
        return {}


class MaskRCNN(FasterRCNN):
    """torchvision's Mask R-CNN on a HaloNet: a `FasterRCNN` that adds `masks` [n, 1, height, width] (probabilities)."""

    has_masks = True

    def _make_mask_parts(self, config: DetectorConfig, num_classes: int, backbone: Pyramid) -> dict[str, nn.Module]:
        return {
            "mask_roi_pool": make_pool(backbone, 14),
            "mask_head": MaskRCNNHeads(config.pyramid_channels, (config.mask_channels,) * 4, 1),
            "mask_predictor": MaskRCNNPredictor(config.mask_channels, config.mask_channels, num_classes + 1),
        }


def make_pool(backbone: Pyramid, side: int) -> MultiScaleRoIAlign:
    """Pool boxes from all levels of a pyramid but the extra one, as squares of `side` x `side`.

    torchvision's own pool guesses the reductions from the first image and keeps the guess. It is wrong for small
    images, where padding matters, and a resumed run would see another first image.
    """
    reductions = backbone.reductions[:-1]
    pool = MultiScaleRoIAlign([str(level) for level in range(len(reductions))], side, sampling_ratio=2)
    pool.scales = [1 / reduction for reduction in reductions]
    pool.map_levels = initLevelMapper(int(math.log2(reductions[0])), int(math.log2(reductions[-1])))
    return pool


def create_detector(
    backbone: str,
    num_classes: int,
    augmentation: DetectionAugmentation | None = None,
    *,
    masks: bool = True,
    backbone_overrides: dict[str, Any] | None = None,
    **settings: Any,
) -> FasterRCNN:
    """Build a detector, freshly initialized.

    Args:
        backbone: A row of `halonet.HALONETS`; the paper's are "r50se", "r50se_halo_b8", "r50se_halo_b32", "r101se" and
            "r101se_halo_b8" (section 4.6, Table 5).
        num_classes: Number of classes, without background.
        augmentation: How images are scaled and normalized; None takes torchvision's 800 and 1,333 pixels.
        masks: Whether it draws masks (Mask R-CNN) or finds boxes alone (Faster R-CNN).
        backbone_overrides: Other fields of the backbone's `HaloNetConfig`.
        **settings: Fields of `DetectorConfig`.

    Returns:
        The detector, in training mode.

    Raises:
        UserError: A name is unknown, or a value is out of its range.
    """
    check_arguments(num_classes=(num_classes, Classes))
    known = [field.name for field in dataclasses.fields(DetectorConfig) if field.name != "backbone"]
    for name in settings:
        if name not in known:
            raise UserError(unknown_name("setting of a detector", name, known))
    config = DetectorConfig(backbone=configure(backbone, **(backbone_overrides or {})), **settings)
    kind = MaskRCNN if masks else FasterRCNN
    return kind(config, num_classes, augmentation or DetectionAugmentation())
