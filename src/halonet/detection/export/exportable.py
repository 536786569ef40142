"""A detector's inference in a form that exporters can trace."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchvision.ops import MultiScaleRoIAlign

from halonet.detection.export.parts import align, clip, keep_best, paste, prepare, suppress
from halonet.detection.mask_rcnn import SIZE_DIVISOR, FasterRCNN

OUTPUTS = ("boxes", "labels", "scores", "masks")  # a Faster R-CNN lacks the last
THRESHOLD = "score_threshold"
SMALLEST_DETECTION = 1e-2  # torchvision's, in pixels of the scaled image


class ExportableDetector(nn.Module):
    """The inference of a detector for one image, without branches or loops that depend on the data.

    It computes with the detector's own modules, so it shares their weights.

    Args:
        detector: In evaluation mode whenever this is called.
    """

    image_mean: Tensor
    image_std: Tensor
    score_threshold: Tensor

    def __init__(self, detector: FasterRCNN) -> None:
        super().__init__()
        self.detector = detector
        device = next(detector.parameters()).device
        transform: Any = detector.transform
        heads: Any = detector.roi_heads
        numbers = (
            ("image_mean", torch.tensor(transform.image_mean)[:, None, None]),
            ("image_std", torch.tensor(transform.image_std)[:, None, None]),
            (THRESHOLD, torch.tensor(heads.score_thresh)),
        )
        for name, number in numbers:
            self.register_buffer(name, number.to(device), persistent=False)
        rpn: Any = detector.rpn
        rpn.anchor_generator.set_cell_anchors(torch.float32, device)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs."""
        return OUTPUTS if self.detector.has_masks else OUTPUTS[:3]

    def forward(
        self, image: Float[Tensor, "channels height width"]
    ) -> (
        tuple[Float[Tensor, "n 4"], Int[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, "n 1 height width"]]
        | tuple[Float[Tensor, "n 4"], Int[Tensor, " n"], Float[Tensor, " n"]]
    ):
        """Find instances.

        Args:
            image: float32, of any size, with values in [0, 1].

        Returns:
            Boxes (x0, y0, x1, y1 in pixels of the image), labels (int64, from 1), scores and, for a Mask R-CNN, masks
            (probabilities), by descending score.
        """
        transform: Any = self.detector.transform
        height, width = image.shape[1:]
        normalized = (image - self.image_mean) / self.image_std
        padded, size = prepare(normalized, transform.min_size[-1], transform.max_size, SIZE_DIVISOR)
        size = size.to(image)
        features = list(self.detector.backbone(padded).values())
        proposals = self._propose(features, padded.shape[-2:], size)
        boxes, scores, labels = self._judge(features, proposals, size)
        masks = self._draw(features, boxes, labels) if self.detector.has_masks else None
        sides = torch.stack([torch.full_like(size[0], side) for side in (height, width)])
        boxes = boxes * (sides / size).flip(0).repeat(2)
        if masks is None:
            return boxes, labels, scores
        return boxes, labels, scores, paste(masks, boxes, height, width)[:, None]

    def _propose(self, features: list[Tensor], padded_size: Sequence[int], size: Float[Tensor, "2"]) -> Tensor:
        """Compute the proposals [n, 4] of all levels."""
        rpn: Any = self.detector.rpn
        grids = [list(level.shape[-2:]) for level in features]
        strides: Any = [[side // cells for side, cells in zip(padded_size, grid, strict=True)] for grid in grids]
        all_boxes, all_scores = [], []
        for anchors, logits, deltas in zip(
            rpn.anchor_generator.grid_anchors(grids, strides), *rpn.head(features), strict=True
        ):
            logits = logits[0].permute(1, 2, 0).flatten()
            deltas = deltas[0].unflatten(0, (-1, 4)).permute(2, 3, 0, 1).flatten(0, 2)
            # Stable, so that runtimes agree: where the image is padded, many logits are equal.
            logits, indices = (each[: rpn.pre_nms_top_n()] for each in logits.sort(descending=True, stable=True))
            boxes = clip(rpn.box_coder.decode_single(deltas[indices], anchors[indices]), size)
            scores = logits.sigmoid()
            valid = _has_sides(boxes, rpn.min_size) & (scores >= rpn.score_thresh)
            # By rank, because rounding in a runtime may change the order of probabilities near 1.
            ranks = logits.shape[0] - torch.arange(logits.shape[0], device=logits.device)
            ranks = torch.where(valid, ranks.to(logits), -1.0)
            kept = suppress(boxes[None], ranks[None], rpn.nms_thresh, rpn.post_nms_top_n())[:, 1]
            all_boxes.append(boxes[kept])
            all_scores.append(scores[kept])
        order = torch.cat(all_scores).argsort(descending=True, stable=True)
        return torch.cat(all_boxes)[order[: rpn.post_nms_top_n()]]

    def _judge(self, features: list[Tensor], proposals: Tensor, size: Float[Tensor, "2"]) -> tuple[Tensor, ...]:
        """Compute boxes [n, 4], scores [n] and labels [n] from the proposals."""
        heads: Any = self.detector.roi_heads
        logits, deltas = heads.box_predictor(heads.box_head(self._pool(features, proposals, heads.box_roi_pool)))
        boxes = clip(heads.box_coder.decode_single(deltas, proposals).unflatten(1, (-1, 4)), size)
        # The first class is the background.
        boxes, scores = boxes[:, 1:].transpose(0, 1), logits.softmax(1)[:, 1:].T
        scores = torch.where(_has_sides(boxes, SMALLEST_DETECTION) & (scores > self.score_threshold), scores, -1.0)
        boxes, scores, classes = keep_best(boxes, scores, heads.nms_thresh, heads.detections_per_img)
        return boxes, scores, classes + 1

    def _draw(self, features: list[Tensor], boxes: Tensor, labels: Tensor) -> Float[Tensor, "n side side"]:
        heads: Any = self.detector.roi_heads
        logits = heads.mask_predictor(heads.mask_head(self._pool(features, boxes, heads.mask_roi_pool)))
        classes = labels[:, None, None, None].expand(-1, 1, *logits.shape[2:])
        return logits.gather(1, classes)[:, 0].sigmoid()

    def _pool(self, features: list[Tensor], boxes: Tensor, pool: MultiScaleRoIAlign) -> Tensor:
        assert pool.map_levels is not None  # `make_pool` has set it
        # The last level is only for proposals.
        reductions = self.detector.pyramid.reductions[:-1]
        return align(features[:-1], reductions, boxes, pool.map_levels, pool.output_size[0], pool.sampling_ratio)


def _has_sides(boxes: Float[Tensor, "*boxes 4"], smallest: float) -> Tensor:
    """Whether a box is at least this wide and high."""
    return (boxes[..., 2:] - boxes[..., :2] >= smallest).all(-1)
