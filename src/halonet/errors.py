"""The one error class for what a user's file, flag, folder or checkpoint can cause, its warning, and a name's hint."""

import difflib
import functools
import warnings
from collections.abc import Iterable

LONGEST_NAME = 100  # letters of a wrong name that a message repeats


class UserError(ValueError):
    """A mistake the user can mend: the message names the value, the rule and the remedy.

    The command line prints it on one line and exits with status 2, without a traceback.
    """


class DivergedError(UserError):
    """A loss or a weight became infinite or NaN in training."""


class UserNote(UserWarning):
    """What the user should know of a call that does its work all the same; the command line prints it on one line."""


@functools.cache
def note_once(message: str) -> None:
    """Warn with a `UserNote`, of each message once: a data set is opened several times in a run."""
    warnings.warn(UserNote(message), stacklevel=3)


def unknown_name(kind: str, name: str, known: Iterable[str], section: str = "") -> str:
    """Say that `name` is not a known `kind`, with the nearest known name and all of them.

    Args:
        kind: What the name should have been, e.g. "model".
        name: What the user wrote.
        known: The names that exist.
        section: What is written before all of these names.

    Returns:
        The sentence, to be raised by the caller.
    """
    names = sorted(known)
    if len(name) > LONGEST_NAME:
        name = f"{name[:LONGEST_NAME]}..."
    known_names = ", ".join(section + each for each in names)
    return f"unknown {kind} {section + name!r}.{nearest_name(name, names, section)} Known: {known_names}."


def nearest_name(name: str, known: Iterable[str], section: str = "") -> str:
    """Ask whether another name was meant; empty if none is near."""
    nearest = difflib.get_close_matches(name[:LONGEST_NAME], list(known), n=1, cutoff=0.5)
    return f" Did you mean {section + nearest[0]!r}?" if nearest else ""
