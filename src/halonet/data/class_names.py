"""The classes of data among those of a checkpoint, by their names."""

from collections import Counter
from collections.abc import Sequence

from halonet.errors import UserError


def place_names(data_names: Sequence[str], checkpoint_names: Sequence[str]) -> list[int]:
    """Find the place of each of the data's names among the checkpoint's; equal names pair up in their order.

    Args:
        data_names: Some of the checkpoint's.
        checkpoint_names: The checkpoint's class names.

    Returns:
        Places from 0, by the data's name.

    Raises:
        UserError: A name is not one of the checkpoint's, or occurs more often than there.
    """
    places: dict[str, list[int]] = {}
    for place, name in enumerate(checkpoint_names):
        places.setdefault(name, []).append(place)
    found = []
    for name, occurrence in zip(data_names, _occurrences(data_names), strict=True):
        if name not in places:
            raise UserError(
                f"the data's class {name!r} is none of the checkpoint's {len(checkpoint_names)} classes "
                f"({', '.join(checkpoint_names[:3])}{', ...' if len(checkpoint_names) > 3 else ''}): "
                "it was trained on other data"
            )
        if occurrence >= len(places[name]):
            raise UserError(
                f"the data has {list(data_names).count(name)} classes of the name {name!r}, but the checkpoint has "
                f"{len(places[name])}: it was trained on other data"
            )
        found.append(places[name][occurrence])
    return found


def _occurrences(names: Sequence[str]) -> list[int]:
    """How many equal names come before each."""
    counts: Counter[str] = Counter()
    before = []
    for name in names:
        before.append(counts[name])
        counts[name] += 1
    return before
