"""Matching the classes of a data set with those of a checkpoint, by name."""

from collections import Counter
from collections.abc import Sequence

from halonet.errors import UserError


def place_names(data_names: Sequence[str], checkpoint_names: Sequence[str]) -> list[int]:
    """Index in the checkpoint's class names of each of the data's; repeated names are paired in order.

    Raises:
        UserError: A name is not one of the checkpoint's, or occurs more often than there.
    """
    indices: dict[str, list[int]] = {}
    for index, name in enumerate(checkpoint_names):
        indices.setdefault(name, []).append(index)
    found = []
    for name, occurrence in zip(data_names, _occurrences(data_names), strict=True):
        if name not in indices:
            raise UserError(
                f"the data's class {name!r} is not one of the checkpoint's {len(checkpoint_names)} classes "
                f"({', '.join(checkpoint_names[:3])}{', ...' if len(checkpoint_names) > 3 else ''}): "
                "it was trained on other data"
            )
        if occurrence >= len(indices[name]):
            raise UserError(
                f"the data has {list(data_names).count(name)} classes named {name!r}, but the checkpoint has "
                f"{len(indices[name])}: it was trained on other data"
            )
        found.append(indices[name][occurrence])
    return found


def _occurrences(names: Sequence[str]) -> list[int]:
    """For each name, how many equal names precede it."""
    counts: Counter[str] = Counter()
    before = []
    for name in names:
        before.append(counts[name])
        counts[name] += 1
    return before
