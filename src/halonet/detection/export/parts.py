"""Steps of a detector's inference in forms that an exporter can follow: no branch or loop depends on the data."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import nms, roi_align
from torchvision.ops.poolers import LevelMapper

# What follows has no equal among the operators that exporters know: its size depends on floating-point rounding, or a
# runtime does in one operator what takes a loop here.
_OPERATORS = torch.library.Library("halonet", "FRAGMENT")
_OPERATORS.define("prepare(Tensor image, int min_size, int max_size, int divisor) -> (Tensor padded, Tensor size)")
_OPERATORS.define("suppress(Tensor boxes, Tensor scores, float iou_threshold, int most) -> Tensor")


def prepare(
    image: Float[Tensor, "channels height width"], min_size: int, max_size: int, divisor: int
) -> tuple[Float[Tensor, "1 channels padded_height padded_width"], Int[Tensor, "2"]]:
    """Scale bilinearly and pad with zeros at the right and bottom, as torchvision's `GeneralizedRCNNTransform` does.

    Args:
        image: One image, normalized.
        min_size: What the shorter side becomes, in pixels ...
        max_size: ... unless the longer side would exceed this.
        divisor: The padded sides are multiples of it.

    Returns:
        The image, and its height and width before it was padded.
    """
    return torch.ops.halonet.prepare(image, min_size, max_size, divisor)


def suppress(
    boxes: Float[Tensor, "groups boxes 4"], scores: Float[Tensor, "groups boxes"], iou_threshold: float, most: int
) -> Int[Tensor, "kept 2"]:
    """Suppress what overlaps a box of a higher score in the same group.

    Args:
        boxes: As x0, y0, x1, y1.
        scores: Negative for a box that is to be left out.
        iou_threshold: Boxes overlap if their intersection over union exceeds it.
        most: Boxes kept of a group.

    Returns:
        Group and place of each box that is kept; in a group from the highest score to the lowest.
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
    # Sizes of their own, not formulas of the image's: each decision on such a formula takes the exporter long.
    cells = [torch.library.get_ctx().new_dynamic_size(min=1) for _ in range(2)]
    padded = image.new_empty(1, image.shape[0], *(divisor * each for each in cells))
    return padded, image.new_empty(2, dtype=torch.int64)


@torch.library.impl(_OPERATORS, "suppress", "CompositeExplicitAutograd")
def _suppress(boxes: Tensor, scores: Tensor, iou_threshold: float, most: int) -> Tensor:
    kept = []
    for group in range(len(boxes)):
        (places,) = torch.where(scores[group] >= 0)
        places = places[nms(boxes[group][places], scores[group][places], iou_threshold)[:most]]
        kept.append(torch.stack([torch.full_like(places, group), places], 1))
    return torch.cat(kept)


@torch.library.register_fake("halonet::suppress", lib=_OPERATORS)
def _empty_suppressed(boxes: Tensor, scores: Tensor, iou_threshold: float, most: int) -> Tensor:
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), 2, dtype=torch.int64)


def keep_best(
    boxes: Float[Tensor, "groups boxes 4"], scores: Float[Tensor, "groups boxes"], iou_threshold: float, most: int
) -> tuple[Float[Tensor, "kept 4"], Float[Tensor, " kept"], Int[Tensor, " kept"]]:
    """Suppress in each group, then keep the best of all groups, from the highest score to the lowest.

    Returns:
        Boxes, scores and groups.
    """
    groups = boxes.shape[0]
    group, place = suppress(boxes, scores, iou_threshold, most).unbind(1)
    # Equal scores stay in torchvision's order: by place, then by group.
    kept = (place * groups + group).sort().values
    scores, order = scores.T.flatten()[kept].sort(descending=True, stable=True)
    kept = kept[order][:most]
    return boxes.transpose(0, 1).flatten(0, 1)[kept], scores[:most], kept % groups


def clip(boxes: Float[Tensor, "*boxes 4"], size: Float[Tensor, "2"]) -> Float[Tensor, "*boxes 4"]:
    """Cut off what lies outside an image of this height and width."""
    return boxes.clamp(min=0).minimum(size.flip(0).repeat(2))


def align(
    levels: Sequence[Float[Tensor, "1 channels _ _"]],
    reductions: Sequence[int],
    boxes: Float[Tensor, "boxes 4"],
    mapper: LevelMapper,
    side: int,
    sampling_ratio: int,
) -> Float[Tensor, "boxes channels side side"]:
    """Cut each box out of the level that fits its size, as torchvision's `MultiScaleRoIAlign` does.

    Args:
        levels: Feature maps, finest first.
        reductions: Image pixels to a pixel of each level.
        boxes: In pixels of the image.
        mapper: Tells the level of each box.
        side: Height and width of what is cut out.
        sampling_ratio: Points along a side of each pixel that are averaged.
    """
    level_of = mapper([boxes])
    rois = F.pad(boxes, (1, 0))
    places, pieces = [], []
    for level, (features, reduction) in enumerate(zip(levels, reductions, strict=True)):
        (here,) = torch.where(level_of == level)
        places.append(here)
        pieces.append(roi_align(features, rois[here], side, 1 / reduction, sampling_ratio))
    return torch.cat(pieces)[torch.cat(places).argsort()]


def paste(
    masks: Float[Tensor, "masks side side"], boxes: Float[Tensor, "masks 4"], height: Any, width: Any
) -> Float[Tensor, "masks height width"]:
    """Draw each mask into its box in an image of zeros, as torchvision's `paste_masks_in_image` does.

    Bilinear interpolation is linear in rows and in columns: a product with one matrix for each.

    Args:
        masks: Probabilities.
        boxes: In pixels of the image.
        height: Of the image, in pixels.
        width: Of the image.
    """
    side = masks.shape[-1] + 2  # of a mask surrounded by zeros
    x0, y0, x1, y1 = boxes.unbind(1)
    columns = _interpolation(x0, x1, side, width)
    rows = _interpolation(y0, y1, side, height)
    return rows @ F.pad(masks, (1, 1, 1, 1)) @ columns.mT


def _interpolation(
    start: Float[Tensor, " masks"], end: Float[Tensor, " masks"], side: int, length: Any
) -> Float[Tensor, "masks length side"]:
    """What each of the `side` rows of a mask, the first and the last zero, adds to each row of the image."""
    half = (end - start) * 0.5 * (side / (side - 2))
    center = (end + start) * 0.5
    first, last = (center - half).long(), (center + half).long()
    place = torch.arange(length, device=start.device) - first[:, None]
    # Outside its box a mask goes on as its border, which is zero.
    position = ((place + 0.5) * (side / (last - first + 1))[:, None] - 0.5).clamp(0, side - 1)
    distance = (position[..., None] - torch.arange(side, device=start.device)).abs()
    return (1 - distance).clamp(min=0)


def make_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """How the exporter is to write, in ONNX, what it does not know or gets wrong.

    Returns:
        The `custom_translation_table` of `torch.onnx.export`; functions that build nodes, by what they stand for.
    """
    import onnx
    from onnxscript import opset18

    op: Any = opset18  # typed as if it were never given Python's numbers

    def double(number: float) -> Any:
        return op.Constant(value=onnx.helper.make_tensor("", onnx.TensorProto.DOUBLE, [], [number]))

    def prepare(image: Any, min_size: int, max_size: int, divisor: int) -> tuple[Any, Any]:
        # In float64, as Python computes: float32 would round some sides to a pixel less or more.
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
        # onnxscript's own rounds towards zero, so that -(-a // b) would not round up.
        return op.Div(op.Sub(dividend, op.Mod(dividend, divisor)), divisor)

    return {
        torch.ops.halonet.prepare.default: prepare,
        torch.ops.halonet.suppress.default: suppress,
        torch.ops.aten.sort.stable: sort,
        operator.floordiv: floor_divide,
    }
