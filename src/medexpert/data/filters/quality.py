"""Measures of running text, after Rae et al. 2021 (Gopher, arXiv 2112.11446, A1.1), loosened.

Gopher asks for words of 3 to 10 letters on average, 80 % of words with a letter, two stop words, at
most 90 % of lines as bullets and 30 % ending in an ellipsis. Medical text has longer words, numbers
and lists, so only what no such text does is dropped.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

from medexpert.data.filters.language import ENGLISH
from medexpert.data.filters.repetition import is_chinese
from medexpert.data.filters.settings import Settings

_LETTERS = string.ascii_letters.encode()
_DIGITS = string.digits.encode()
_BLANKS = b" \t\n"
_PLAIN_SIGNS = b".,;:!?'\"()[]%/-"
# Beyond ASCII: what is no word character, blank, punctuation in use, or sign of medicine's prose.
_SYMBOL = re.compile(
    r"[^\w\s\x00-\x7f，。、；：！？（）《》〈〉「」『』【】〔〕“”‘’…—–·．％～±≥≤×÷°′″→←↑↓∶]"
)
_OTHER_MARK = re.compile(r"[^\w\s\x00-\x7f]")
_BULLET = re.compile(r"\s*(?:[-*•●○◦▪■◆►·–]|\d{1,3}[.)、])\s*\S")
_ELLIPSIS = ("...", "…")
_SENTENCE_END = re.compile(r"[.!?。！？；;:：]")
_CONTENTS = re.compile(
    r"[^\n]{2,100}?(?:\.{3,}|…{1,}|\. \. \.|·{3,}|\t+| {3,})\s*(?:\d{1,4}|[ivxl]{1,6})\s*"
    r"|[^\n.。:：]{2,70},\s*\d{1,4}[a-z]?(?:\s*[-–,]\s*\d{1,4}[a-z]?)*\s*",
    re.IGNORECASE,
)
_HAN = re.compile(r"[\u3040-\u30fa\u3400-\u9fff]")
_LEAST_LINES = 8
_STOP_WORDS_FROM = 50  # words


@dataclass(frozen=True)
class Counts:
    """Characters of a text by class; `solid` = all that are no blanks."""

    solid: int
    letters: int
    digits: int
    symbols: int


def count(text: str) -> Counts:
    """Letters, digits and symbols; ASCII is counted bytewise, which takes microseconds."""
    raw = text.encode("ascii", "ignore")
    solid = raw.translate(None, _BLANKS)
    rest = solid.translate(None, _LETTERS)
    signs = rest.translate(None, _DIGITS)
    letters, digits = len(solid) - len(rest), len(rest) - len(signs)
    symbols = len(signs.translate(None, _PLAIN_SIGNS))
    others = len(text) - len(raw)
    if others:
        beyond = text if others * 3 > len(text) else _beyond(text)
        marks = len(_OTHER_MARK.findall(beyond))
        symbols += len(_SYMBOL.findall(beyond)) if marks else 0
        letters += others - marks - sum(map(beyond.count, "\u3000\xa0"))
    return Counts(len(solid) + others, letters, digits, symbols)


def _beyond(text: str) -> str:
    """The characters beyond ASCII, found by splitting where ASCII runs stand."""
    return "".join(_ASCII_RUN.split(text))


_ASCII_RUN = re.compile(r"[\x00-\x7f]+")


def character_reason(text: str, settings: Settings) -> str | None:
    """`few_letters`, `many_symbols` or `many_digits`."""
    found = count(text)
    solid = max(1, found.solid)
    if found.digits > settings.max_digits * solid:
        return "many_digits"
    if found.symbols > settings.max_symbols * solid:
        return "many_symbols"
    return "few_letters" if found.letters < settings.min_alpha * solid else None


def word_reason(text: str, settings: Settings) -> str | None:
    """`few_words`, `word_length` or `no_sentence`."""
    if is_chinese(text):
        size = len("".join(text.split()))
        if size < 2 * settings.min_words:
            return "few_words"
        few = size >= 200 and _fewer_sentences(text, settings.min_sentences)
        return "no_sentence" if few else None
    words = text.split()
    if len(words) < settings.min_words:
        return "few_words"
    mean = (len(text) - len(words) + 1) / len(words)
    if not settings.min_word_length <= mean <= settings.max_word_length and not _has_han(text):
        return "word_length"
    few = len(words) >= 100 and _fewer_sentences(text, settings.min_sentences)
    return "no_sentence" if few else None


def _fewer_sentences(text: str, least: int) -> bool:
    ends = _SENTENCE_END.finditer(text)
    return any(next(ends, None) is None for _ in range(least))


def _has_han(text: str) -> bool:
    """Whether Chinese, which sets no blanks, takes part in the text's words."""
    return not text.isascii() and _HAN.search(text) is not None


def stop_word_reason(text: str, settings: Settings) -> str | None:
    """`no_stop_words` for running text in Latin letters where English is wanted.

    Tables and lists (lines of fewer than 60 characters on average) need none.
    """
    if "en" not in settings.languages or not text[:200].isascii():
        return None
    words = text[:600].split()
    if len(words) < _STOP_WORDS_FROM or len(text) < 60 * (1 + text.count("\n")):
        return None
    if len(ENGLISH.intersection(words[:_STOP_WORDS_FROM])) >= settings.min_stop_words:
        return None
    every = ENGLISH.intersection(text.lower().split())
    return "no_stop_words" if len(every) < settings.min_stop_words else None


def line_reason(text: str, settings: Settings) -> str | None:
    """`contents`, `ellipsis_lines` or `bullet_lines`, for texts of several lines."""
    if text.count("\n") < _LEAST_LINES - 1:
        return None
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) < _LEAST_LINES:
        return None
    total = len(lines)
    if (
        sum(line.rstrip().endswith(_ELLIPSIS) for line in lines)
        > settings.max_ellipsis_lines * total
    ):
        return "ellipsis_lines"
    short = [line for line in lines if len(line) < 200 and line[-1:].isalnum()]
    entries = sum(_CONTENTS.fullmatch(line) is not None for line in short)
    if entries > settings.max_contents_lines * total:
        return "contents"
    bullets = [line for line in lines if _BULLET.match(line)]
    brief = sum(map(len, bullets)) < 40 * len(bullets)
    return "bullet_lines" if brief and len(bullets) > settings.max_bullet_lines * total else None
