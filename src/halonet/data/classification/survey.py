"""A survey of a data set's image headers, which finds unreadable images before any work is done."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from halonet.data.classification.image_source import ImageSource, inspect_source
from halonet.errors import UserError

LIMIT = 10_000  # headers read per split, spread evenly over a larger one: a few seconds at most
LIMIT_DECODED = 100  # if reading a header takes decoding the image


@dataclass(frozen=True)
class Survey:
    """What the headers say.

    Attributes:
        images: How many headers were read.
        shorter_side: The median length of the shorter side, in pixels.
        in_color: How many images are in color.
    """

    images: int
    shorter_side: int
    in_color: int


def survey(sources: Sequence[ImageSource], where: str) -> Survey:
    """Read the headers of one or more splits, at most `LIMIT` of each; messages call the data `where`.

    Raises:
        UserError: Some images cannot be read; it names them.
    """
    sides, in_color, problems = [], 0, []
    for source in sources:
        limit = LIMIT if hasattr(source, "inspect") else LIMIT_DECODED
        for index in range(0, len(source), max(1, -(-len(source) // limit))):
            try:
                header = inspect_source(source, index)
            except UserError as error:
                problems.append(str(error))
                continue
            sides.append(min(header.size))
            in_color += header.in_color
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise UserError(f"{len(problems)} image(s) of {where} cannot be read: {shown}")
    if not sides:
        raise UserError(f"{where} holds no images")
    return Survey(len(sides), round(statistics.median(sides)), in_color)
