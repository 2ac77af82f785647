"""Free text -> one of the choices, or NO_ANSWER. Never a guess.

Two places are read. First the last explicit statement ("Final answer: yes", "the answer is (B)",
"答案：是"); if there is one and it is ambiguous, the result is NO_ANSWER. Otherwise the last line,
when it is nothing but a choice, or opens with a choice set off by punctuation and names no other.
A label inside a sentence ("there is no evidence") is not an answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from medexpert.records import NO_ANSWER

_ANCHOR = (
    r"(?:\b(?:final|correct|best|right)?\s*answer\b|最终答案|正确答案|答案)"
    r"[\s*_]*(?:would be|should be|is|为|是|[:：])(?:[\s*_]*[:：])?"
)
_OPEN = r"[\s*_\"'“”‘`(\[（【]*"
_CLOSE = r"[*_\"'“”’`)\]）】]*"
_AFTER = r"(?=\s*(?:$|[.,;:!?。，；：！？\n]|[-–—]\s|because\b|since\b|as\b|given\b))"
_BETWEEN = re.compile(r"[\s,;/|、，]*(?:\bor\b|\band\b|或者?|和)?[\s*_\"'“”(\[（]*")
_SET_OFF = r"(?:[.,;:!)][*_]*\s+|[。，；：！]\s*)(?=[^\d\s])"
_LETTERS = "ABCDEFGHIJ"


def parse_choice(
    text: str, choices: Sequence[str], *, labels: Mapping[str, str] | None = None
) -> str:
    """The choice the text states, or NO_ANSWER.

    `labels`: choice -> the word for it in the text (a template's declared labels). Words match in
    any case; letters A, B, ... (order of `choices`) only in upper case and when no choice is a
    single letter itself. Total: any text and any choices give a choice or NO_ANSWER.
    """
    words = _words(choices, labels or {})
    if not words:
        return NO_ANSWER
    stated = _statements(text, words)
    if stated:
        return stated[-1]
    return _last_line(text, words)


def stated_choices(
    text: str, choices: Sequence[str], *, labels: Mapping[str, str] | None = None
) -> list[str]:
    """Every choice the text explicitly states as the answer, in order; ambiguous ones left out."""
    words = _words(choices, labels or {})
    return [c for c in _statements(text, words) if c != NO_ANSWER] if words else []


def _words(choices: Sequence[str], labels: Mapping[str, str]) -> dict[str, str]:
    """Casefolded word -> choice; a word that two choices share stands for neither."""
    found: dict[str, str] = {}
    shared = set()
    for choice in choices:
        for word in {choice.strip().casefold(), labels.get(choice, choice).strip().casefold()}:
            if word and found.setdefault(word, choice) != choice:
                shared.add(word)
    letters: dict[str, str] = {}
    if not any(len(word) == 1 and word.isascii() for word in found):
        # Kept in upper case: "a" is an article.
        letters = dict(zip(_LETTERS, choices, strict=False))
    return {word: c for word, c in found.items() if word not in shared} | letters


def _pattern(words: Mapping[str, str]) -> str:
    """Alternation of the words, longest first; ASCII words end where a word ends."""
    parts = []
    for word in sorted(words, key=lambda w: (-len(w), w)):
        body = re.escape(word)
        body = body if word in _LETTERS and len(word) == 1 else f"(?i:{body})"
        left = r"(?<![A-Za-z0-9_])" if word[0].isascii() and word[0].isalnum() else ""
        right = r"(?![A-Za-z0-9_])" if word[-1].isascii() and word[-1].isalnum() else ""
        parts.append(f"{left}{body}{right}")
    return f"({'|'.join(parts)})"


def _meaning(word: str, words: Mapping[str, str]) -> str:
    return words.get(word, words.get(word.casefold(), NO_ANSWER))


def _statements(text: str, words: Mapping[str, str]) -> list[str]:
    """What each "the answer is ..." says: a choice, or NO_ANSWER where it names several."""
    label = _pattern(words)
    anchored = re.compile(rf"(?i:{_ANCHOR}){_OPEN}{label}{_CLOSE}", re.MULTILINE)
    after = re.compile(_AFTER, re.IGNORECASE | re.MULTILINE)
    found = []
    for match in anchored.finditer(text):
        choice = _meaning(match.group(1), words)
        rest = text[match.end() :].split("\n", 1)[0]
        named = _following(rest, label, words)
        # "B) yes" and "A. aspirin" repeat the same choice; "yes/no/maybe" echoes the question.
        if named:
            found.append(choice if named == {choice} else NO_ANSWER)
        elif after.match(text, match.end()):
            found.append(choice)
    return found


def _following(rest: str, label: str, words: Mapping[str, str]) -> set[str]:
    """Choices listed directly behind a stated one ("B) yes", "yes, no or maybe")."""
    step = re.compile(rf"[.)\]:：]?{_BETWEEN.pattern}{label}{_CLOSE}")
    named = set()
    at = 0
    while match := step.match(rest, at):
        named.add(_meaning(match.group(1), words))
        at = match.end()
    return named


def _last_line(text: str, words: Mapping[str, str]) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return NO_ANSWER
    line = re.sub(r"^[#>\-\s]+", "", lines[-1])
    label = _pattern(words)
    opening = re.match(f"{_OPEN}{label}{_CLOSE}", line)
    if not opening:
        return NO_ANSWER
    choice = _meaning(opening.group(1), words)
    rest = line[opening.end() :]
    if not re.search(r"[^\W_]", rest):
        return choice
    # "B) yes" says one thing twice; "Yes, there is no ..." may be an argument: not ours to judge.
    mentioned = {_meaning(match.group(1), words) for match in re.finditer(label, rest)}
    alone = re.fullmatch(rf"[\W_]*{label}[\W_]*", rest)
    set_off = re.match(_SET_OFF, rest)
    return choice if (alone or set_off) and mentioned <= {choice} else NO_ANSWER
