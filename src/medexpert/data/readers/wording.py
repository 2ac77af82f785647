"""Text of a data file inside a message: on one line, printable, and of a bounded length."""

from __future__ import annotations

from unicodedata import category

MOST = 600
"""Characters of a message; a row that is all one key would otherwise be told in full."""


def one_line(text: str, most: int = MOST) -> str:
    r"""The text with line ends, controls and marks of direction as escapes such as \n, \u202e.

    More than `most` characters are cut off and an ellipsis put in their place.
    """
    if len(text) > most:
        text = text[:most] + "…"
    if text.isprintable():
        return text
    shown = "".join(map(_shown, text))
    return shown if len(shown) <= most else shown[:most] + "…"


def _shown(character: str) -> str:
    if character.isprintable() or category(character) == "Zs":
        return character
    return repr(character)[1:-1]
