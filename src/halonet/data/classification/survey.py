"""What the headers of a data set's images say, and which images cannot be read, before any work is done."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from halonet.data.classification.sources import ImageSource, inspect_source
from halonet.errors import UserError

LIMIT = 10_000  # headers of a split; of a larger one only a part, spread evenly, is read: a few seconds at most
LIMIT_DECODED = 100  # where a header cannot be read without its image


@dataclass(frozen=True)
class Survey:
    """What was found.

    Attributes:
        images: How many headers were read.
        shorter_side: The median length of the shorter side, in pixels.
        in_color: How many are in color.
    """

    images: int
    shorter_side: int
    in_color: int


def survey(sources: Sequence[ImageSource], where: str) -> Survey:
    """Read the headers of a data set's images, of a large set's a part spread evenly over it.

    Args:
        sources: The images, of one split or of several.
        where: What to call the data in messages.

    Returns:
        What was found.

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
