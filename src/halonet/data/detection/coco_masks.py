"""The masks of COCO's annotations: which can be drawn, how large they are, and their run lengths.

A data set's masks are checked together, since one at a time would take longer than reading the file.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from halonet.data.images import PIXEL_LIMIT

FARTHEST = 2**20  # pixels; pycocotools draws a polygon's edges point by point, however far they lead
LONGEST = 2**21  # pixels that the edges of one polygon may take together
PIECE = 2**16  # characters of compressed run lengths that are checked at once
DIGITS = 6  # of five bits; more make a number beyond any image

NO_MASK = "without a mask"
NEITHER = "whose mask is neither polygons nor run lengths (size and counts)"
FEW_POINTS = "whose mask has a polygon that is not x and y of 3 points or more"
NOT_NUMBERS = "whose mask has a polygon that holds something other than numbers"
FAR = "whose mask has a polygon that is not finite or leads too far"
OTHER_SIZE = "whose mask is not of its image's size (height and width)"
DAMAGED = "whose run lengths are damaged or do not add up to the pixels of their image"


def mask_faults(segmentations: Sequence[Any], sizes: Sequence[tuple[int, int]]) -> list[str | None]:
    """Say what is wrong with masks.

    Args:
        segmentations: As COCO's annotations have them: polygons, or run lengths, compressed or not.
        sizes: Height and width of the image of each.

    Returns:
        For each mask one of the reasons above, or None if it can be drawn.
    """
    faults: list[str | None] = [None] * len(segmentations)
    drawn, strings = [], []
    for place, (mask, size) in enumerate(zip(segmentations, sizes, strict=True)):
        if not mask:
            faults[place] = NO_MASK
        elif type(mask) is list:
            drawn.append(place)
        else:
            faults[place] = _run_length_fault(mask, size)
            if faults[place] is None and isinstance(mask["counts"], str):
                strings.append(place)
    if not _all_drawable([segmentations[place] for place in drawn]):
        for place in drawn:
            faults[place] = _polygon_fault(segmentations[place])
    pixels = np.array([sizes[place][0] * sizes[place][1] for place in strings], np.int64)
    sound = sound_strings([segmentations[place]["counts"] for place in strings], pixels)
    for place, is_sound in zip(strings, sound.tolist(), strict=True):
        if not is_sound:
            faults[place] = DAMAGED
    return faults


def run_lengths(segmentation: Any, height: int, width: int) -> list[int]:
    """How many pixels of a mask are 0, then 1, then 0 ..., down its columns one after another.

    Args:
        segmentation: A mask without a fault.
        height: Of its image.
        width: Of its image.
    """
    if isinstance(segmentation, list):
        from pycocotools import mask as tools

        merged: Any = tools.merge(tools.frPyObjects(segmentation, height, width))
        return decompress(merged["counts"].decode())
    counts = segmentation["counts"]
    return decompress(counts) if isinstance(counts, str) else counts


# pycocotools decodes too, but reads and writes beyond its memory where the string is damaged.
def decompress(counts: str) -> list[int]:
    """Read run lengths from COCO's string: five bits a character, the lowest first, from the fourth on as differences.

    Args:
        counts: The string.

    Raises:
        ValueError: It is damaged.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in counts:
        code = ord(character) - ord("0")
        if not 0 <= code < 64:
            raise ValueError(f"{character!r} is no digit of run lengths")
        value |= (code & 31) << shift
        shift += 5
        if code < 32:  # no more digits follow
            value -= (code & 16) << (shift - 4)
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            if lengths[-1] < 0:
                raise ValueError("a run length is negative")
            value = shift = 0
    if shift:
        raise ValueError("its run lengths are cut off")
    return lengths


def sound_strings(strings: Sequence[str], pixels: Int64[np.ndarray, " masks"]) -> Bool[np.ndarray, " masks"]:
    """Tell which strings `decompress` reads as runs that add up to so many pixels.

    Args:
        strings: Compressed run lengths.
        pixels: Of the image of each.
    """
    ends = np.cumsum(np.fromiter(map(len, strings), np.int64, len(strings)))
    # Pieces whose arrays stay in the processor's cache: all strings at once took three times as long.
    cuts = np.flatnonzero(np.diff(ends // PIECE, prepend=0, append=-1)).tolist()
    pieces = [slice(first, last) for first, last in zip([0, *cuts], cuts, strict=False) if first < last]
    sound = [_sound_piece(strings[piece], pixels[piece]) for piece in pieces]
    return np.concatenate(sound) if sound else np.ones(0, bool)


def _sound_piece(strings: Sequence[str], pixels: Int64[np.ndarray, " masks"]) -> Bool[np.ndarray, " masks"]:
    # A character beyond ASCII becomes one that is no digit.
    text = "".join(string if string.isascii() else "~" * len(string) for string in strings)
    codes = np.frombuffer(text.encode(), np.uint8) - np.uint8(ord("0"))  # what is below "0" wraps
    lengths = np.fromiter(map(len, strings), np.int64, len(strings))
    ends = np.cumsum(lengths)
    sound = lengths > 0
    sound[np.searchsorted(ends, np.flatnonzero(codes > 63), "right")] = False
    sound[sound] = codes[ends[sound] - 1] < 32
    if not sound.all():
        kept = np.flatnonzero(sound)
        if len(kept):
            sound[kept] = _sound_piece([strings[place] for place in kept.tolist()], pixels[kept])
        return sound

    # Each string ends with the last digit of a number, which has the sign. From there on to the first digits.
    last = np.flatnonzero(codes < 32)
    digits = np.diff(last, prepend=-1)
    values = (codes[last].astype(np.int64) ^ 16) - 16
    for digit in range(1, min(DIGITS, int(digits.max()))):
        longer = np.flatnonzero(digits > digit)
        values[longer] = values[longer] << 5 | codes[last[longer] - digit] & 31

    # Each number from the fourth on is a difference to the one two before it.
    begins = np.concatenate([[0], np.searchsorted(last, ends[:-1])])  # of each string among the numbers
    counts = np.diff(begins, append=len(values))
    sums = np.zeros(len(values) + 2, np.int64)
    sums[2:] = values
    for parity in (0, 1):
        np.cumsum(sums[parity::2], out=sums[parity::2])
    before = np.stack([sums[begins + 2], sums[begins + 1]])  # what came before the third and the second number
    parities = (np.arange(len(values)) - np.repeat(begins, counts)) & 1
    runs = sums[2:] - np.where(parities, *np.repeat(before[::-1], counts, axis=1))
    runs[begins] = values[begins]
    wrong = (digits > DIGITS) | (runs < 0) | (runs > PIXEL_LIMIT)
    sound = np.add.reduceat(runs, begins) == pixels  # exact where no run is wrong
    sound[np.searchsorted(begins, np.flatnonzero(wrong), "right") - 1] = False
    return sound


def _run_length_fault(mask: Any, size: tuple[int, int]) -> str | None:
    counts = mask.get("counts") if isinstance(mask, dict) else None
    if not isinstance(counts, list | str):
        return NEITHER
    if mask.get("size") != list(size):
        return OTHER_SIZE
    mask["size"] = list(size)  # whole numbers, as pycocotools asks
    if isinstance(counts, list):
        plain = set(map(type, counts)) == {int} and min(counts) >= 0
        return None if plain and sum(counts) == size[0] * size[1] else DAMAGED
    return None


def _polygon_fault(mask: list[Any]) -> str | None:
    for polygon in mask:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            return FEW_POINTS
        if not all(type(number) in (int, float) for number in polygon):
            return NOT_NUMBERS
    return None if _all_drawable([mask]) else FAR


def _all_drawable(masks: Sequence[list[Any]]) -> bool:
    """Whether all polygons of all masks can be drawn."""
    polygons = list(chain.from_iterable(masks))
    if not polygons:
        return True
    if not all(type(polygon) is list and len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in polygons):
        return False
    if not set(map(type, chain.from_iterable(polygons))) <= {int, float}:
        return False
    lengths = np.fromiter(map(len, polygons), np.int64, len(polygons))
    try:
        points = np.fromiter(chain.from_iterable(polygons), np.float64, int(lengths.sum()))
    except OverflowError:
        return False
    return bool((np.abs(points) < FARTHEST).all()) and bool((_outlines(points, lengths) < LONGEST).all())


def _outlines(points: Float64[np.ndarray, " n"], lengths: Int64[np.ndarray, " m"]) -> Float64[np.ndarray, " m"]:
    """At least the length of each polygon's edges, measured along the axes."""
    steps = np.zeros_like(points)
    steps[:-2] = np.abs(points[2:] - points[:-2])
    starts = np.cumsum(lengths) - lengths
    for last in (1, 2):  # the way to the next polygon
        steps[starts + lengths - last] = 0
    return 2 * np.add.reduceat(steps, starts)  # closing it takes no longer than what came before
