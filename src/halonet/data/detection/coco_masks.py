"""The masks of COCO's annotations: their faults and their run lengths.

All masks of a data set are checked together; one at a time would take longer than reading the file.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from halonet.data.images import PIXEL_LIMIT

FARTHEST = 2**20  # pixels from the origin; pycocotools draws edges point by point, however long they are
LONGEST = 2**21  # total pixels of one polygon's edges
PIECE = 2**16  # characters of compressed run lengths checked at once
DIGITS = 6  # of five bits each; a longer number exceeds any image

NO_MASK = "without a mask"
NEITHER = "whose mask is neither polygons nor run lengths (size and counts)"
FEW_POINTS = "whose mask has a polygon that is not x and y of 3 points or more"
NOT_NUMBERS = "whose mask has a polygon that holds something other than numbers"
FAR = "whose mask has a polygon that is not finite or leads too far"
OTHER_SIZE = "whose mask is not of its image's size (height and width)"
DAMAGED = "whose run lengths are damaged or do not add up to the pixels of their image"


def mask_faults(segmentations: Sequence[Any], sizes: Sequence[tuple[int, int]]) -> list[str | None]:
    """The fault of each mask, one of the reasons above, or None if it can be drawn.

    Args:
        segmentations: COCO's polygons, or run lengths, compressed or not.
        sizes: Height and width of each mask's image.
    """
    faults: list[str | None] = [None] * len(segmentations)
    drawn, strings = [], []
    for index, (mask, size) in enumerate(zip(segmentations, sizes, strict=True)):
        if not mask:
            faults[index] = NO_MASK
        elif type(mask) is list:
            drawn.append(index)
        else:
            faults[index] = _run_length_fault(mask, size)
            if faults[index] is None and isinstance(mask["counts"], str):
                strings.append(index)
    if not _all_drawable([segmentations[index] for index in drawn]):
        for index in drawn:
            faults[index] = _polygon_fault(segmentations[index])
    pixels = np.array([sizes[index][0] * sizes[index][1] for index in strings], np.int64)
    sound = sound_strings([segmentations[index]["counts"] for index in strings], pixels)
    for index, is_sound in zip(strings, sound.tolist(), strict=True):
        if not is_sound:
            faults[index] = DAMAGED
    return faults


def run_lengths(segmentation: Any, height: int, width: int) -> list[int]:
    """Run lengths of a mask without a fault: the numbers of pixels that are 0, then 1, then 0 ..., column by column."""
    if isinstance(segmentation, list):
        from pycocotools import mask as tools

        merged: Any = tools.merge(tools.frPyObjects(segmentation, height, width))
        return decompress(merged["counts"].decode())
    counts = segmentation["counts"]
    return decompress(counts) if isinstance(counts, str) else counts


# pycocotools' own decoder reads and writes out of bounds if the string is damaged.
def decompress(counts: str) -> list[int]:
    """Decode COCO's string of run lengths: five bits per character, lowest first, differences from the fourth number.

    Raises:
        ValueError: The string is damaged.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in counts:
        code = ord(character) - ord("0")
        if not 0 <= code < 64:
            raise ValueError(f"{character!r} is not a digit of run lengths")
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
    """Whether `decompress` would read each string without an error, as run lengths that sum to the image's pixels."""
    ends = np.cumsum(np.fromiter(map(len, strings), np.int64, len(strings)))
    # In pieces whose arrays fit into the processor's cache: all strings at once took three times as long.
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
            sound[kept] = _sound_piece([strings[index] for index in kept.tolist()], pixels[kept])
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
    """Whether every polygon can be drawn."""
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
    """An upper bound on the length of each polygon's edges, measured along the axes."""
    steps = np.zeros_like(points)
    steps[:-2] = np.abs(points[2:] - points[:-2])
    starts = np.cumsum(lengths) - lengths
    for last in (1, 2):  # the way to the next polygon
        steps[starts + lengths - last] = 0
    return 2 * np.add.reduceat(steps, starts)  # closing it takes no longer than what came before
