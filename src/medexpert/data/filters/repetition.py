"""Text that says the same over and over, by lines and by runs of words.

Measures and the limits for lines after Rae et al. 2021 (Gopher, arXiv 2112.11446, table A1): share
of duplicate lines 0.30, of characters in them 0.20. Their limits for runs of 2 to 10 words (0.10 to
0.20) take lists of doses and classical prescriptions; ours look at longer runs and allow more.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from medexpert.data.filters.settings import DEFAULT, Settings

RUN, TOP_RUN = 10, 4  # words
CHINESE_RUN, CHINESE_TOP_RUN = 20, 8  # characters
CHINESE_SHARE = 0.5  # least limit: the classics describe each disease in the same set phrases
_LEAST_UNITS = 50
_LEAST_LINE = 15  # shorter lines ("Yes", "100 mg") repeat in good tables
_LEAST_LINES = 4
_CJK = re.compile(r"[\u3040-\u30fa\u3400-\u9fff]")  # scripts without blanks between words
_PHRASE = re.compile(r"[^\s，。、；：！？,.;:!?]+")
_BLANKS = re.compile(r"\s+")


def repetition_reason(text: str, settings: Settings = DEFAULT) -> str | None:
    """`repeated_lines` or `repeated_runs`, or None."""
    if text.count("\n") >= _LEAST_LINES - 1 and _repeated_lines(text, settings):
        return "repeated_lines"
    if len(text) < 200 and not _CJK.search(text):
        return None
    return "repeated_runs" if _repeated_runs(text, settings) else None


EXAMPLE_SHARE = 0.6


def example_repetition(text: str, settings: Settings = DEFAULT) -> str | None:
    """As above for a text of an example: only runs, and only when said more than twice.

    Verse, code and tables repeat lines; people ask the same twice, in the title and the message.
    """
    return "repeated_runs" if _repeated_runs(text, settings, EXAMPLE_SHARE) else None


def repetitive(text: str) -> bool:
    """Whether a text is mostly repeats of itself, by the default limits."""
    return repetition_reason(text) is not None


def _repeated_lines(text: str, settings: Settings) -> bool:
    lines = [line for raw in text.split("\n") if len(line := raw.strip()) >= _LEAST_LINE]
    distinct = set(lines)
    if len(lines) < _LEAST_LINES or len(distinct) == len(lines):
        return False
    repeated = sum(map(len, lines)) - sum(map(len, distinct))
    return len(lines) - len(distinct) > settings.max_duplicate_lines * len(
        lines
    ) and repeated > settings.max_duplicate_line_chars * len(text)


def _repeated_runs(text: str, settings: Settings, least: float = 0.0) -> bool:
    """Whether repeated runs of units (words; Chinese: characters) cover too much of the text."""
    if is_chinese(text):
        units: Sequence[str] = _BLANKS.sub("", text)
        if len(units) < _LEAST_UNITS or not _may_repeat(_PHRASE.findall(text)):
            return False
        return _over(units, CHINESE_RUN, CHINESE_TOP_RUN, settings, max(least, CHINESE_SHARE))
    units = text.split()
    if len(units) < _LEAST_UNITS or not _may_repeat(units):
        return False
    table = len(text) < 60 * (1 + text.count("\n"))  # "mg twice a day" on each line is no damage
    return _over(units, RUN, TOP_RUN, settings, least, tops=not table)


def is_chinese(text: str) -> bool:
    """Whether a third or more of the first 1,000 characters are Chinese or Japanese."""
    if text.isascii():
        return False
    head = text[:1000]
    return len(_CJK.findall(head)) * 3 >= len(head)


def _may_repeat(words: list[str]) -> bool:
    """A look at pairs of longer words, which a repeated run repeats: few repeats settle it.

    A text over the limits has a quarter or more of its pairs from repeats; where longer words are
    too rare to tell, the full measure decides.
    """
    long = [word for word in words if len(word) > 5]
    if len(long) * 5 < len(words):
        return True
    pairs = len(long) - 1
    return pairs - len(set(pairwise(long))) > 0.15 * pairs


def _over(
    units: Sequence[str],
    run: int,
    top_run: int,
    settings: Settings,
    least: float,
    *,
    tops: bool = True,
) -> bool:
    """Whether runs said before cover more than the limit (at least `least`) of the characters."""
    if not _repeats_short(units, top_run):
        return False
    sizes = [len(unit) for unit in units]
    total = sum(sizes) or 1
    seen: set[tuple[str, ...] | str] = set()
    covered = last = 0
    for start in range(len(units) - run + 1):
        window = _window(units, start, run)
        if window in seen:  # count each unit once, though runs overlap
            covered += sum(sizes[max(start, last) : start + run])
            last = start + run
        seen.add(window)
    if covered > max(least, settings.max_duplicate_ngram_chars) * total:
        return True
    if not tops:
        return False
    counts = Counter(_window(units, i, top_run) for i in range(len(units) - top_run + 1))
    window, count = counts.most_common(1)[0]
    length = sum(map(len, window))
    return count > 3 and count * length > max(least, settings.max_top_ngram_chars) * total


def _repeats_short(units: Sequence[str], size: int) -> bool:
    """Whether at least one short window in 32 was there before; below, no limit can be reached."""
    windows = len(units) - size + 1
    distinct = len(set(zip(*(units[start:] for start in range(size)), strict=False)))
    return windows - distinct > windows / 32


def _window(units: Sequence[str], start: int, run: int) -> tuple[str, ...] | str:
    part = units[start : start + run]
    return part if isinstance(part, str) else tuple(part)
