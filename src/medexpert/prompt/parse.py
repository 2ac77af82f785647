"""Free text -> one of the choices, or NO_ANSWER. Never a guess.

Two places are read. First the last explicit statement ("Final answer: yes", "the answer is (B)",
"答案：是"); if there is one and it is ambiguous, the result is NO_ANSWER. Otherwise the last line,
when it is nothing but a choice, or opens with a choice set off by punctuation and names no other.
One of several options that the text lists, one below the other, is no answer in either place.
A label inside a sentence ("there is no evidence") is not an answer, nor is one that is supposed
("if the answer is yes"), nor the letter of a name ("E. coli").

Full-width letters and digits, and the spaces, hyphens and quotes that look like the plain ones, are
read as those. Look-alikes of another alphabet (a Cyrillic А) are other letters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from medexpert.prompt.options import LETTERS, printed
from medexpert.records import NO_ANSWER

_ANCHOR = (
    r"(?:(?:\b(?:(?:final|correct|best|right)?\s*answer|(?:final|correct|best|right)\s+"
    r"(?:option|choice))\b|最终答案|正确答案|正确选项|答案)"
    r"[\s*_]*(?:would be|should be|is|为|是|[:：])(?:[\s*_]*[:：])?"
    r"|(?:故|应|因此|所以)选(?:择)?(?:[\s*_]*[:：])?)"
)
_SUPPOSED = re.compile(
    r"(?:\b(?:if|unless|whether|suppos(?:e|es|ed|ing)|assum(?:e|es|ed|ing))\b(?:\s+that)?"
    r"(?:\s+(?:the|its|an?|my|your|this|our))?|如果|假如|假设|倘若|是否)\s*$",
    re.IGNORECASE,
)
"""What stands before a statement that is no statement."""
_NAME = re.compile(r"\.\s*(?!(?:because|since|as|given)\b)([a-z][a-z-]*)")
"""E. coli, C. difficile: a letter, a point and a word in small letters."""
_OPEN = r"[\s*_\"'“”‘`(\[（【]*"
_CLOSE = r"[*_\"'“”’`)\]）】]*"
_AFTER = r"(?=\s*(?:$|[.,;:!?。，；：！？\n]|[-–—]\s|because\b|since\b|as\b|given\b))"
_BETWEEN = re.compile(r"[\s,;/|、，]*(?:\bor\b|\band\b|或者?|和)?[\s*_\"'“”(\[（]*")
_SET_OFF = r"(?:[.,;:!)][*_]*\s+|[。，；：！]\s*)(?=[^\d\s])"
_PLAIN = str.maketrans(
    {chr(wide): chr(wide - 0xFEE0) for first, last in ("０９", "ＡＺ", "ａｚ")
     for wide in range(ord(first), ord(last) + 1)}
    | dict.fromkeys("\u00a0\u2007\u2009\u202f\u3000", " ")
    | dict.fromkeys("\u2010\u2011", "-") | dict.fromkeys("‘’", "'") | dict.fromkeys("“”", '"')
    | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", "")
)  # fmt: skip


def parse_choice(
    text: str,
    choices: Sequence[str],
    *,
    labels: Mapping[str, str] | None = None,
    by_letter: bool = True,
) -> str:
    """The choice the text states, or NO_ANSWER.

    `labels`: choice -> the word or letter for it in the prompt; a label wins over a choice that
    reads the same. Words match in any case; letters only in upper case. Without letters among the
    labels A, B, ... stand for the choices in order, unless a choice is a single letter itself or
    `by_letter` is off (letters of the prompt stand for something else).
    Total: any text and any choices give a choice or NO_ANSWER.
    """
    words = _words(choices, labels or {}, by_letter)
    if not words:
        return NO_ANSWER
    text = text.translate(_PLAIN)
    stated = _statements(text, words)
    if stated:
        return stated[-1]
    return _last_line(text, words)


def stated_choices(
    text: str, choices: Sequence[str], *, labels: Mapping[str, str] | None = None
) -> list[str]:
    """Every choice the text explicitly states as the answer, in order; ambiguous ones left out."""
    words = _words(choices, labels or {})
    stated = _statements(text.translate(_PLAIN), words) if words else []
    return [c for c in stated if c != NO_ANSWER]


def _words(
    choices: Sequence[str], labels: Mapping[str, str], by_letter: bool = True
) -> dict[str, str]:
    """Folded word, or letter, -> choice; a word that two choices share stands for neither.

    Letters stay in upper case: "a" is an article.
    """
    named = [(_plain(labels.get(c, c)), c) for c in choices]
    letters = {word: c for word, c in named if c in labels and _is_letter(word)}
    plain = [(word, c) for word, c in named if word not in letters]
    # A text that is printed under two letters names neither of them.
    texts = _distinct(
        (_fold(text), c)
        for c, shown in zip(choices, printed(choices), strict=False)
        for text in (c, shown, labels.get(c, c))
    )
    if not letters:
        own = _distinct((_fold(word), c) for word, c in plain)
        single = any(len(word) == 1 and word.isascii() and word.isalpha() for word in texts)
        if by_letter and not single:
            letters = dict(zip(LETTERS, choices, strict=False))
        return {**texts, **own, **letters} if labels else {**texts, **letters}
    # "A. B" is option A, although another option may have the letter B.
    full = _distinct((_fold(f"{word}. {c}"), c) for word, c in letters.items())
    texts = {w: c for w, c in texts.items() if letters.get(w.upper(), c) == c}
    return {**texts, **full, **letters}


def _distinct(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    shared = set()
    for word, choice in pairs:
        if word and found.setdefault(word, choice) != choice:
            shared.add(word)
    return {word: choice for word, choice in found.items() if word not in shared}


def _plain(text: str) -> str:
    return " ".join(text.translate(_PLAIN).split())


def _fold(text: str) -> str:
    return _plain(text).casefold()


def _is_letter(word: str) -> bool:
    return len(word) == 1 and word in LETTERS


def _pattern(words: Mapping[str, str]) -> str:
    """Alternation of the words, longest first; ASCII words end where a word or number ends."""
    parts = []
    for word in sorted(words, key=lambda w: (-len(w), w)):
        body = r"\s+".join(map(re.escape, word.split()))
        body = body if _is_letter(word) else f"(?i:{body})"
        left = r"(?<![A-Za-z0-9_])" if word[0].isascii() and word[0].isalnum() else ""
        right = r"(?![A-Za-z0-9_])" if word[-1].isascii() and word[-1].isalnum() else ""
        # 1 is not in 1.5, 1,000, 0.1, 1/2 or 1-2.
        left += r"(?<!\d[.,/:-])" if word[0].isdecimal() else ""
        right += r"(?![.,/:-]?\d)" if word[-1].isdecimal() else ""
        parts.append(f"{left}{body}{right}")
    return f"({'|'.join(parts)})"


def _meaning(word: str, words: Mapping[str, str]) -> str:
    return words.get(word, words.get(_fold(word), NO_ANSWER))


def _is_a_name(word: str, choice: str, rest: str) -> bool:
    """Whether a letter and what follows it are a name such as E. coli, not the choice of that
    letter: a word in small letters behind the point that is not in the choice's own text."""
    name = _NAME.match(rest) if _is_letter(word) else None
    return name is not None and not re.search(rf"\b{re.escape(name[1])}\b", _fold(choice))


def _statements(text: str, words: Mapping[str, str]) -> list[str]:
    """What each "the answer is ..." says: a choice, or NO_ANSWER where it names several."""
    label = _pattern(words)
    anchored = re.compile(rf"(?i:{_ANCHOR}){_OPEN}{label}{_CLOSE}", re.MULTILINE)
    after = re.compile(_AFTER, re.IGNORECASE | re.MULTILINE)
    found = []
    for match in anchored.finditer(text):
        choice = _meaning(match.group(1), words)
        rest = text[match.end() :].split("\n", 1)[0]
        if _SUPPOSED.search(text[max(0, match.start() - 60) : match.start()]):
            continue
        below = text[match.end() :].split("\n")[1:]
        if "\n" in match.group():  # "Answer:", and the options below it
            below = [line for line in below if line.strip()]
        another = _opening(_bare(below[0]), label, words, alone=True) if below else NO_ANSWER
        if _is_a_name(match.group(1), choice, rest) or another not in (NO_ANSWER, choice):
            found.append(NO_ANSWER)
            continue
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
    lines = [_bare(line) for line in text.splitlines() if line.strip()]
    if not lines:
        return NO_ANSWER
    label = _pattern(words)
    choice = _opening(lines[-1], label, words)
    if choice == NO_ANSWER or _listed(lines, choice, label, words):
        return NO_ANSWER
    # "B) yes" says one thing twice; "Yes, there is no ..." may be an argument: not ours to judge.
    mentioned = {_meaning(match.group(1), words) for match in re.finditer(label, lines[-1])}
    return choice if mentioned <= {choice} else NO_ANSWER


def _bare(line: str) -> str:
    """A line without its bullet; a minus sign is none."""
    return re.sub(r"^(?:[#>\s]|-\s)+", "", line.strip())


def _opening(line: str, label: str, words: Mapping[str, str], *, alone: bool = False) -> str:
    """The choice a line opens with, set off from what follows; `alone`: nothing but its text."""
    opening = re.match(f"{_OPEN}{label}{_CLOSE}", line)
    if not opening:
        return NO_ANSWER
    choice = _meaning(opening.group(1), words)
    rest = line[opening.end() :]
    if not re.search(r"[^\W_]", rest):
        return choice
    if _is_a_name(opening.group(1), choice, rest):
        return NO_ANSWER
    if re.fullmatch(rf"[\W_]*{label}[\W_]*", rest):
        return choice
    return choice if not alone and re.match(_SET_OFF, rest) else NO_ANSWER


def _listed(lines: Sequence[str], choice: str, label: str, words: Mapping[str, str]) -> bool:
    """Whether the last line is one of several options that the text lists.

    A list is lines that open with different choices, one below the other, or letters with
    anything between. A choice that comes again behind its list is an answer, unless the line
    before it comes again too: then the list does.
    """
    opened = [_opening(line, label, words) for line in lines[:-1]]
    named = [other for other in opened if other != NO_ANSWER]
    if choice in named and (named[-1] == choice or named[-1] not in named[:-1]):
        return False
    if opened and opened[-1] not in (NO_ANSWER, choice):
        return True
    letter = re.compile(rf"{_OPEN}[A-Z]\b{_CLOSE}[\W_]*\w")
    return bool(letter.match(lines[-1])) and any(
        other not in (NO_ANSWER, choice) and letter.match(line)
        for other, line in zip(opened, lines, strict=False)
    )
