"""Steps of a detector's inference that exporters can trace: no branches or loops depend on the data."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import nms, roi_align
from torchvision.ops.poolers import LevelMapper

# Operators that exporters lack: the size of the first depends on floating-point rounding, and the second is a loop here
# but one operator in runtimes.
_OPERATORS = torch.library.Library("halonet", "FRAGMENT")
_OPERATORS.define("prepare(Tensor image, int min_size, int max_size, int divisor) -> (Tensor padded, Tensor size)")
_OPERATORS.define("suppress(Tensor boxes, Tensor scores, float iou_threshold, int most) -> Tensor")


def prepare(
    image: Float[Tensor, "channels height width"], min_size: int, max_size: int, divisor: int
) -> tuple[Float[Tensor, "1 channels padded_height padded_width"], Int[Tensor, "2"]]:
    """Scale bilinearly and pad with zeros at the right and bottom, as torchvision's `GeneralizedRCNNTransform` does.

    Args:
        image: Normalized.
        min_size: Target for the shorter side, in pixels ...
        max_size: ... unless the longer side would exceed this.
        divisor: Padded sides are multiples of it.

    Returns:
        The image, and its height and width before padding.
    """
    return torch.ops.halonet.prepare(image, min_size, max_size, divisor)


def suppress(
    boxes: Float[Tensor, "groups boxes 4"], scores: Float[Tensor, "groups boxes"], iou_threshold: float, most: int
) -> Int[Tensor, "kept 2"]:
    """Suppress boxes that overlap a box with a higher score in the same group.

    Args:
        boxes: As x0, y0, x1, y1.
        scores: Negative for boxes to leave out.
        iou_threshold: Boxes overlap if their intersection over union exceeds it.
        most: The most boxes to keep in a group.

    Returns:
        Group and index of each box that is kept, by descending score within a group.
    """
    return torch.ops.halonet.suppress(boxes, scores, iou_threshold, most)


@torch.library.impl(_OPERATORS, "prepare", "CompositeExplicitAutograd")
def _prepare(image: Tensor, min_size: int, max_size: int, divisor: int) -> tuple[Tensor, Tensor]:
    size = image.shape[-2:]
    scale = min(min_size / min(size), max_size / max(size))
    scaled = F.interpolate(
        image[None], scale_factor=scale, mode="bilinear", recompute_scale_factor=True, align_corners=False
    )
    height, width = scaled.shape[-2:]
    return F.pad(scaled, (0, -width % divisor, 0, -height % divisor)), torch.tensor([height, width])


@torch.library.register_fake("halonet::prepare", lib=_OPERATORS)
def _empty_prepared(image: Tensor, min_size: int, max_size: int, divisor: int) -> tuple[Tensor, Tensor]:
    # New symbols, because the exporter is slow with sizes that are formulas of the image's.
    cells = [torch.library.get_ctx().new_dynamic_size(min=1) for _ in range(2)]
    padded = image.new_empty(1, image.shape[0], *(divisor * each for each in cells))
    return padded, image.new_empty(2, dtype=torch.int64)


@torch.library.impl(_OPERATORS, "suppress", "CompositeExplicitAutograd")
def _suppress(boxes: Tensor, scores: Tensor, iou_threshold: float, most: int) -> Tensor:
    kept = []
    for group in range(len(boxes)):
        (valid,) = torch.where(scores[group] >= 0)
        best = valid[nms(boxes[group][valid], scores[group][valid], iou_threshold)[:most]]
        kept.append(torch.stack([torch.full_like(best, group), best], 1))
    return torch.cat(kept)


@torch.library.register_fake("halonet::suppress", lib=_OPERATORS)
def _empty_suppressed(boxes: Tensor, scores: Tensor, iou_threshold: float, most: int) -> Tensor:
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), 2, dtype=torch.int64)


def keep_best(
    boxes: Float[Tensor, "groups boxes 4"], scores: Float[Tensor, "groups boxes"], iou_threshold: float, most: int
) -> tuple[Float[Tensor, "kept 4"], Float[Tensor, " kept"], Int[Tensor, " kept"]]:
    """Suppress in each group, then keep the best of all groups, by descending score.

    Returns:
        Boxes, scores and groups.
    """
    groups = boxes.shape[0]
    group, index = suppress(boxes, scores, iou_threshold, most).unbind(1)
    # Equal scores stay in torchvision's order: by index, then by group.
    kept = (index * groups + group).sort().values
    scores, order = scores.T.flatten()[kept].sort(descending=True, stable=True)
    kept = kept[order][:most]
    return boxes.transpose(0, 1).flatten(0, 1)[kept], scores[:most], kept % groups


def clip(boxes: Float[Tensor, "*boxes 4"], size: Float[Tensor, "2"]) -> Float[Tensor, "*boxes 4"]:
    """Clip boxes to an image of this height and width."""
    return boxes.clamp(min=0).minimum(size.flip(0).repeat(2))


def align(
    levels: Sequence[Float[Tensor, "1 channels _ _"]],
    reductions: Sequence[int],
    boxes: Float[Tensor, "boxes 4"],
    mapper: LevelMapper,
    side: int,
    sampling_ratio: int,
) -> Float[Tensor, "boxes channels side side"]:
    """Pool each box from the level that fits its size, as torchvision's `MultiScaleRoIAlign` does.

    Args:
        levels: Feature maps, finest first.
        reductions: Image pixels per pixel of each level.
        boxes: In pixels of the image.
        mapper: Returns the level of each box.
        side: Height and width of the output.
        sampling_ratio: Points that are averaged along a side of each pixel.
    """
    level_of = mapper([boxes])
    rois = F.pad(boxes, (1, 0))
    indices, pieces = [], []
    for level, (features, reduction) in enumerate(zip(levels, reductions, strict=True)):
        (on_level,) = torch.where(level_of == level)
        indices.append(on_level)
        pieces.append(roi_align(features, rois[on_level], side, 1 / reduction, sampling_ratio))
    return torch.cat(pieces)[torch.cat(indices).argsort()]


def paste(
    masks: Float[Tensor, "masks side side"], boxes: Float[Tensor, "masks 4"], height: Any, width: Any
) -> Float[Tensor, "masks height width"]:
    """Paste each mask into its box in an image of zeros, as torchvision's `paste_masks_in_image` does.

    Bilinear interpolation is linear in rows and in columns, so it is a product with one matrix for each.

    Args:
        masks: Probabilities.
        boxes: In pixels of the image.
        height: Height of the image.
        width: Width of the image.
    """
    side = masks.shape[-1] + 2  # of a mask surrounded by zeros
    x0, y0, x1, y1 = boxes.unbind(1)
    columns = _interpolation(x0, x1, side, width)
    rows = _interpolation(y0, y1, side, height)
    return rows @ F.pad(masks, (1, 1, 1, 1)) @ columns.mT


def _interpolation(
    start: Float[Tensor, " masks"], end: Float[Tensor, " masks"], side: int, length: Any
) -> Float[Tensor, "masks length side"]:
    """The weight of each row of a mask, which has a zero row at both ends, in each row of the image."""
    half = (end - start) * 0.5 * (side / (side - 2))
    center = (end + start) * 0.5
    first, last = (center - half).long(), (center + half).long()
    offset = torch.arange(length, device=start.device) - first[:, None]
    # Outside its box a mask continues with its border, which is zero.
    position = ((offset + 0.5) * (side / (last - first + 1))[:, None] - 0.5).clamp(0, side - 1)
    distance = (position[..., None] - torch.arange(side, device=start.device)).abs()
    return (1 - distance).clamp(min=0)


def make_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Make the `custom_translation_table` of `torch.onnx.export`: operators that it lacks or gets wrong, in ONNX."""
    import onnx
    from onnxscript import opset18

    op: Any = opset18  # its types do not allow Python's numbers

    def double(number: float) -> Any:
        return op.Constant(value=onnx.helper.make_tensor("", onnx.TensorProto.DOUBLE, [], [number]))

    def prepare(image: Any, min_size: int, max_size: int, divisor: int) -> tuple[Any, Any]:
        # In float64, as in Python: with float32 some sides would differ by a pixel.
        sides = op.Cast(op.Shape(image, start=1), to=onnx.TensorProto.DOUBLE)
        scale = op.Min(
            op.Div(double(min_size), op.ReduceMin(sides, keepdims=0)),
            op.Div(double(max_size), op.ReduceMax(sides, keepdims=0)),
        )
        size = op.Cast(op.Mul(sides, scale), to=onnx.TensorProto.INT64)
        image = op.Unsqueeze(image, [0])
        scaled = op.Resize(
            image, None, None, size, axes=[2, 3], mode="linear", coordinate_transformation_mode="half_pixel"
        )
        padding = op.Concat(op.Constant(value_ints=[0, 0]), op.Mod(op.Neg(size), [divisor]), axis=0)
        return op.Pad(scaled, padding, None, [2, 3]), size

    def suppress(boxes: Any, scores: Any, iou_threshold: float, most: int) -> Any:
        kept = op.NonMaxSuppression(boxes, op.Unsqueeze(scores, [1]), [most], [iou_threshold], [-0.5])
        return op.Gather(kept, [0, 2], axis=1)

    def sort(vector: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> tuple[Any, Any]:
        # By definition, of equal elements the one with the lower index comes first.
        return op.TopK(vector, op.Shape(vector), axis=dim, largest=int(descending))

    def floor_divide(dividend: Any, divisor: Any) -> Any:
        # onnxscript's own rounds towards zero, which would break -(-a // b).
        return op.Div(op.Sub(dividend, op.Mod(dividend, divisor)), divisor)

    return {
        torch.ops.halonet.prepare.default: prepare,
        torch.ops.halonet.suppress.default: suppress,
        torch.ops.aten.sort.stable: sort,
        operator.floordiv: floor_divide,
    }
