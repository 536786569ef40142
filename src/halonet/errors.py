"""The error and the warning for users, and hints for misspelled names."""

import difflib
import functools
import warnings
from collections.abc import Iterable

LONGEST_NAME = 100  # letters of an unknown name that a message repeats


class UserError(ValueError):
    """A mistake that the user can correct: the message names the value, the rule and the remedy.

    The command line prints it on one line and exits with status 2, without a traceback.
    """


class UnknownArgumentError(UserError, TypeError):
    """A keyword argument that does not exist; as for any function, it is a TypeError too."""


class DivergedError(UserError):
    """A loss or a weight became infinite or NaN in training."""


class ExportError(UserError, RuntimeError):
    """An exported file gives something else than the network; it is not kept."""


class UserNote(UserWarning):
    """Something the user should know about a call that succeeds; the command line prints it on one line."""


@functools.cache
def note_once(message: str) -> None:
    """Warn with a `UserNote`, once per message: a run opens its data set several times."""
    warnings.warn(UserNote(message), stacklevel=3)


def unknown_name(kind: str, name: str, known: Iterable[str], section: str = "") -> str:
    """Message for an unknown name, with the nearest known name and all of them.

    Args:
        kind: What the name stands for, e.g. "model".
        name: As the user wrote it.
        known: The known names.
        section: A prefix of all of these names.
    """
    names = sorted(known)
    if len(name) > LONGEST_NAME:
        name = f"{name[:LONGEST_NAME]}..."
    known_names = ", ".join(section + known_name for known_name in names)
    return f"unknown {kind} {section + name!r}.{nearest_name(name, names, section)} Known: {known_names}."


def nearest_name(name: str, known: Iterable[str], section: str = "") -> str:
    """The question "Did you mean ...?" for the nearest known name, or "" if none is near."""
    nearest = difflib.get_close_matches(name[:LONGEST_NAME], list(known), n=1, cutoff=0.5)
    return f" Did you mean {section + nearest[0]!r}?" if nearest else ""
