"""Cut a long document into parts at paragraph, line or sentence ends; no character is lost."""

from __future__ import annotations

import re

# Best first. Each match ends where a part may end.
_BREAKS = (
    re.compile(r"\n\s*\n"),
    re.compile(r"\n"),
    re.compile(r"[.!?][\"')\]]*\s|[。！？；][”』」）]*"),
    re.compile(r"\s|[，、,;:]"),
)


def cut(text: str, max_chars: int) -> list[str]:
    """Parts of at most `max_chars` characters whose concatenation is `text`.

    A break is looked for in the second half of the window, the best kind first, its last place;
    without any, the cut falls at `max_chars`.
    """
    parts = []
    start = 0
    while len(text) - start > max_chars:
        end = _break(text, start + max_chars // 2, start + max_chars)
        parts.append(text[start:end])
        start = end
    parts.append(text[start:])
    return parts


def _break(text: str, low: int, high: int) -> int:
    for pattern in _BREAKS:
        end = 0
        for match in pattern.finditer(text, low, high):
            end = match.end()
        if end:
            return end
    return high
