"""Names from outside, made harmless to print."""

import unicodedata

# Characters that turn the direction of the text after them, as in a name that reads "gpj.exe".
DIRECTIONS = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """Make the name of a file, class or checkpoint harmless to print, on one line.

    Control characters (escape codes, line breaks), lone surrogates and marks that change the direction of text are
    replaced by their escapes.
    """
    return "".join(_escaped(character) if _is_harmful(character) else character for character in text)


def _is_harmful(character: str) -> bool:
    return character in DIRECTIONS or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
