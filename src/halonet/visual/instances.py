"""Drawing detections over an image: masks, boxes and names."""

import math
from collections.abc import Sequence
from itertools import cycle
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Num, UInt8
from PIL import Image, ImageColor, ImageDraw, ImageFilter, ImageFont

from halonet.console import printable

# After Okabe and Ito: neighbors in this list differ in hue and lightness, also for color-blind readers.
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
# Opacity of a mask's color, and the amount of white that lightens its outline.
FILL, EDGE = 0.45, 0.35
CROWD = 30  # with more instances, a picture has room for few names
SMALLEST_FONT = 9
Box = tuple[float, float, float, float]


class Tag(NamedTuple):
    """The pixels of a tag, its last ones included."""

    left: int
    top: int
    right: int
    bottom: int


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

    Each instance has its own color. Higher scores are drawn on top, and their tags are placed first; a tag is left out
    if it does not fit into the picture, or, with more than 30 instances, if it is wider than its box.

    Args:
        picture: Of any mode and size; not modified.
        boxes: x0, y0, x1, y1 in pixels.
        labels: The name of each instance's class.
        scores: From 0 to 1.
        masks: Of the picture's size, nonzero at the instance. They are accessed one at a time, so a sequence may create
            them on demand to save memory. None draws only boxes and tags.
        min_score: Only instances with at least this score are drawn.

    Returns:
        A new picture, "RGB", of the same size.

    Raises:
        ValueError: The masks are not of the picture's size.
    """
    width, height = picture.size
    colors = [color for color, _ in zip(cycle(PALETTE), labels, strict=False)]
    drawn = [index for index in np.argsort(scores, kind="stable") if scores[index] >= min_score]
    # For 640 pixels, lines of 1.5 pixels and letters of 12.
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
    # Only around the instance, with a margin for the blur.
    margin = 2 + int(2 * line)
    top, left = max(0, rows[0] - margin), max(0, columns[0] - margin)
    window = np.s_[top : rows[-1] + 1 + margin, left : columns[-1] + 1 + margin]
    # Padded with its own edge, so that an instance has no outline where the picture cuts it off.
    padded = Image.fromarray(np.pad(mask[window], margin, "edge").astype(np.uint8) * 255)
    # Blurring turns the mask's steps into a slope, whose half height is a smooth outline within a pixel of the mask.
    smooth = np.asarray(padded.filter(ImageFilter.GaussianBlur(line)), np.float32) / 255
    steepness = 2.5 * line  # a blurred edge rises by 1 / (2.5 sigma) a pixel
    distance = ((smooth - 0.5) * steepness)[margin:-margin, margin:-margin]
    # Blurring erases an instance of few pixels, so its own pixels are always filled.
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
    """Draw rounded boxes over a picture, at a larger scale and scaled down for smooth edges."""
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
    """Write names at boxes, in place; the first tags are placed first."""
    font = ImageFont.load_default(size)
    draw = ImageDraw.Draw(picture)
    padding = max(2, round(size / 4))
    # All tags have the same height, whatever their letters.
    _, top, _, bottom = draw.textbbox((0, 0), "Ag", font, anchor="ls")
    ascent, height = -top, math.ceil(bottom - top) + padding
    taken: list[Tag] = []
    for box, text, color in tags:
        width = math.ceil(draw.textlength(text, font)) + 2 * padding
        if len(tags) > CROWD and width > box[2] - box[0]:
            continue
        tag = _place_tag(box, width, height, picture.size, taken)
        if tag is None:
            continue
        taken.append(tag)
        draw.rounded_rectangle(tag, padding, fill=color)
        red, green, blue = ImageColor.getrgb(color)[:3]
        ink = DARK if 0.299 * red + 0.587 * green + 0.114 * blue > 125 else LIGHT
        draw.text((tag.left + padding, tag.top + padding / 2 + ascent), text, ink, font, anchor="ls")


def _place_tag(box: Box, width: int, height: int, size: tuple[int, int], taken: list[Tag]) -> Tag | None:
    """Place a tag above the box, below its upper edge, above its lower edge or below it; at the left or right."""
    picture_width, picture_height = size
    if width > picture_width or height > picture_height:
        return None
    x0, y0, x1, y1 = (round(corner) for corner in box)
    for top in (y0 - height, y0, y1 - height, y1):
        for left in (x0, x1 - width):
            left = min(max(0, left), picture_width - width)
            tag = Tag(left, top, left + width - 1, top + height - 1)
            is_inside = tag.top >= 0 and tag.bottom < picture_height
            if is_inside and not any(_overlap(tag, other) for other in taken):
                return tag
    return None


def _overlap(one: Tag, other: Tag) -> bool:
    return one.left <= other.right and other.left <= one.right and one.top <= other.bottom and other.top <= one.bottom
