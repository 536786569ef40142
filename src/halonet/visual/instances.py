"""Pictures of what a detector found: masks, boxes and names, laid over the image."""

import math
from collections.abc import Sequence
from itertools import cycle

import numpy as np
from jaxtyping import Bool, Float32, Num, UInt8
from PIL import Image, ImageColor, ImageDraw, ImageFilter, ImageFont

from halonet.console import printable

# Neighbours in this list differ for the colour-blind too: hue and lightness change together. After Okabe and Ito.
PALETTE = (
    "#56b4e9",
    "#e69f00",
    "#00b38a",
    "#f0e442",
    "#d55e00",
    "#cc79a7",
    "#3d7de0",
    "#a6d854",
    "#b07cf0",
    "#ff8c78",
    "#1fd6d6",
    "#e0559a",
)
DARK, LIGHT = "#14171c", "#ffffff"
# How much of a mask's colour covers the picture, and how much white lightens its outline.
FILL, EDGE = 0.45, 0.35
# With more instances than this, a picture has room for few names.
CROWD = 30
SMALLEST_FONT = 9
Box = tuple[float, float, float, float]
Place = tuple[int, int, int, int]


def draw_instances(
    picture: Image.Image,
    boxes: Num[np.ndarray, "instances 4"],
    labels: Sequence[str],
    scores: Num[np.ndarray, " instances"],
    masks: Bool[np.ndarray, "instances height width"]
    | UInt8[np.ndarray, "instances height width"]
    | Sequence[Bool[np.ndarray, "height width"]]
    | None,
    *,
    min_score: float = 0.5,
) -> Image.Image:
    """Draw instances over a picture: a translucent mask with its outline, a box, and a tag such as `cat 0.93`.

    Each instance has a colour of its own. Higher scores lie on top, and their tags find a place first; a tag that
    finds none within the picture is left out, and so is, among more than 30 instances, one that is wider than its box.

    Args:
        picture: Of any mode and size; not changed.
        boxes: x0, y0, x1, y1 in pixels.
        labels: The name of each instance's class.
        scores: From 0 to 1.
        masks: Of the picture's size; what is not 0 belongs to the instance. One is asked for at a time, so that a
            sequence that makes them then spares memory. None draws boxes and tags alone.
        min_score: Only instances with at least this score are drawn.

    Returns:
        A new picture, "RGB", of the same size.

    Raises:
        ValueError: If the masks are not of the picture's size.
    """
    width, height = picture.size
    colors = [color for color, _ in zip(cycle(PALETTE), labels, strict=False)]
    drawn = [index for index in np.argsort(scores, kind="stable") if scores[index] >= min_score]
    # 640 pixels take lines of 1.5 pixels and letters of 12.
    line = max(1.0, max(width, height) / 430)
    canvas = np.asarray(picture.convert("RGB"), np.float32).copy()
    for index in drawn:
        if masks is None:
            break
        mask = masks[index]
        if mask.shape != (height, width):
            raise ValueError(f"a mask of {mask.shape} pixels does not fit a picture of {(height, width)} pixels")
        _draw_mask(canvas, mask != 0, ImageColor.getrgb(colors[index]), line)
    result = Image.fromarray(canvas.round().astype(np.uint8))
    corners: list[Box] = [tuple(box) for box in boxes.astype(float).tolist()]
    result = _draw_boxes(result, [(corners[index], colors[index]) for index in drawn], line)
    tags = [(corners[index], f"{printable(labels[int(index)])} {scores[index]:.2f}", colors[index]) for index in drawn]
    _draw_tags(result, tags[::-1], max(SMALLEST_FONT, round(max(width, height) / 54)))
    return result


def _draw_mask(
    canvas: Float32[np.ndarray, "height width 3"],
    mask: Bool[np.ndarray, "height width"],
    color: tuple[int, ...],
    line: float,
) -> None:
    """Blend a mask into the canvas, in place."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return
    # Only about the instance, with a margin for what the blurs spread.
    margin = 2 + int(2 * line)
    top, left = max(0, rows[0] - margin), max(0, columns[0] - margin)
    window = np.s_[top : rows[-1] + 1 + margin, left : columns[-1] + 1 + margin]
    # Padded with its own edge, so that an instance which the picture cuts off has no outline there.
    padded = Image.fromarray(np.pad(mask[window], margin, "edge").astype(np.uint8) * 255)
    # A mask's stairs blur into a slope, which is cut at half its height: a smooth outline within a pixel of the mask.
    smooth = np.asarray(padded.filter(ImageFilter.GaussianBlur(line)), np.float32) / 255
    steepness = 2.5 * line  # a blurred edge rises by 1 / (2.5 sigma) a pixel
    distance = ((smooth - 0.5) * steepness)[margin:-margin, margin:-margin]
    # An instance of few pixels blurs away; its own pixels are filled all the same.
    inside = (distance + 0.5).clip(mask[window], 1)
    outline = (line / 2 + 0.5 - np.abs(distance)).clip(0, 1)
    ink = np.array(color, np.float32)
    _blend(canvas[window], ink, FILL * inside)
    _blend(canvas[window], ink + EDGE * (255 - ink), outline)


def _blend(
    canvas: Float32[np.ndarray, "height width 3"],
    ink: Float32[np.ndarray, " 3"],
    opacity: Float32[np.ndarray, "height width"],
) -> None:
    canvas += opacity[:, :, None] * (ink - canvas)


def _draw_boxes(picture: Image.Image, boxes: list[tuple[Box, str]], line: float) -> Image.Image:
    """Lay rounded boxes over a picture, drawn larger and scaled down, so that their edges are smooth."""
    scale = max(1, min(3, 4000 // max(picture.size)))
    layer = Image.new("RGBA", (picture.width * scale, picture.height * scale))
    draw = ImageDraw.Draw(layer)
    alpha = 230 if len(boxes) <= CROWD else 110
    for (x0, y0, x1, y1), color in boxes:
        x0, y0 = max(0.0, x0), max(0.0, y0)
        x1, y1 = min(float(picture.width), x1), min(float(picture.height), y1)
        if x1 - x0 < 1 or y1 - y0 < 1:
            continue
        corners = (x0 * scale, y0 * scale, x1 * scale - 1, y1 * scale - 1)
        radius = min(3 * line, (x1 - x0) / 4, (y1 - y0) / 4) * scale
        ink = (*ImageColor.getrgb(color)[:3], alpha)
        draw.rounded_rectangle(corners, radius, outline=ink, width=max(1, round(0.7 * line * scale)))
    layer = layer.resize(picture.size, Image.Resampling.BOX)
    return Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB")


def _draw_tags(picture: Image.Image, tags: list[tuple[Box, str, str]], size: int) -> None:
    """Write names at boxes, in place; the first tags find a place first."""
    font = ImageFont.load_default(size)
    draw = ImageDraw.Draw(picture)
    padding = max(2, round(size / 4))
    # All tags are of the same height, whatever letters they have.
    _, top, _, bottom = draw.textbbox((0, 0), "Ag", font, anchor="ls")
    ascent, height = -top, math.ceil(bottom - top) + padding
    taken: list[Place] = []
    for box, text, color in tags:
        width = math.ceil(draw.textlength(text, font)) + 2 * padding
        if len(tags) > CROWD and width > box[2] - box[0]:
            continue
        place = _find_place(box, width, height, picture.size, taken)
        if place is None:
            continue
        taken.append(place)
        draw.rounded_rectangle(place, padding, fill=color)
        red, green, blue = ImageColor.getrgb(color)[:3]
        ink = DARK if 0.299 * red + 0.587 * green + 0.114 * blue > 125 else LIGHT
        draw.text((place[0] + padding, place[1] + padding / 2 + ascent), text, ink, font, anchor="ls")


def _find_place(box: Box, width: int, height: int, size: tuple[int, int], taken: list[Place]) -> Place | None:
    """Where a tag fits: above the box, under its upper edge, over its lower edge, below it; on the left or right."""
    if width > size[0] or height > size[1]:
        return None
    x0, y0, x1, y1 = (round(corner) for corner in box)
    for top in (y0 - height, y0, y1 - height, y1):
        for left in (x0, x1 - width):
            left = min(max(0, left), size[0] - width)
            place = (left, top, left + width - 1, top + height - 1)
            inside = place[1] >= 0 and place[3] < size[1]
            if inside and not any(_overlap(place, other) for other in taken):
                return place
    return None


def _overlap(one: Place, other: Place) -> bool:
    return one[0] <= other[2] and other[0] <= one[2] and one[1] <= other[3] and other[1] <= one[3]
