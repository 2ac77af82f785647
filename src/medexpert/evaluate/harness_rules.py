"""How other harnesses read an answer, each rule with its trap. Pure functions of text.

Written from the behaviour of the public code: lm-evaluation-harness 0.4, HELM's joint multiple
choice, Meditron's `evaluate.py`, HuatuoGPT-o1's `scorer.py`, MIRAGE's `locate_answer`. None is a
rule to follow; `prompt.parse` is ours.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medexpert.prompt.options import LETTERS

MEDITRON_ANSWERS = frozenset({"a", "b", "c", "d", "e", "yes", "no"})
"""All that Meditron's scorer accepts: "maybe" is not among them, so it is always wrong."""
_MIRAGE = "ABCD"


@dataclass(frozen=True)
class Read:
    """What a rule made of a text: `label` (a letter or word, "" = nothing) and how.

    `how` is "read", "unread", "guessed" (the nearest option) or "default" (a constant).
    """

    label: str
    how: str


def helm(text: str, count: int) -> Read:
    """Joint multiple choice with exact match: the first line, stripped, must be the letter itself.

    A line break before it, which ends the answer there, a final stop, a bracket or the word behind
    the letter ("A. yes") make it wrong.
    """
    line = text.split("\n", 1)[0].strip()
    return Read(line, "read") if line and line in tuple(LETTERS[:count]) else Read("", "unread")


def meditron(text: str, *, letters: bool, reasoned: bool = False) -> Read:
    """Lower case, everything but letters and digits a blank; then the whole of it must be a label.

    `letters`: only its first character is kept, so "because" is b. `reasoned` (its chain-of-thought
    mode): the word behind the last "answer is", else the first word. The words yes and no written
    together become the first of them.
    """
    said = text.lower()
    if "\n##" in said:  # what stands on the line of the first heading
        said = said.split("\n##")[1].split("\n")[0].strip()
    said = " ".join(re.sub(r"[^a-z0-9]", " ", said).split())
    if reasoned:
        behind = said.split("answer is")[-1].split()
        said = behind[0] if behind else ""
    said = said[:1] if letters else _run_together(said)
    return Read(said, "read") if said in MEDITRON_ANSWERS else Read("", "unread")


def _run_together(said: str) -> str:
    for twice, once in (("yesyes", "yes"), ("nono", "no"), ("yesno", "yes"), ("noyes", "no")):
        if twice in said:
            return said.replace(twice, once)
    return said


def huatuo(text: str, options: Mapping[str, str]) -> tuple[Read, Read]:
    """(first, last) reading; the table takes whichever scores better over all items.

    1. "answer is X"; 2. a lone capital letter of an option anywhere (not the article "A "); 3. an
    option's text anywhere; 4. the option most similar to the whole text: it always answers.
    """
    said = text.split("## Final Response\n\n")[-1]
    stated = re.findall(r"answer is\s*?([A-N])", said)
    if not stated:
        known = "".join(options)
        lone = rf"(?:[\u4e00-\u9fff]|is |\W|^)(?![aA] )([{known}])(?:\W|[\u4e00-\u9fff]|$)"
        stated = re.findall(lone, said)
    if stated:
        return Read(stated[0], "read"), Read(stated[-1], "read")
    plain = said.lower()
    inside = [letter for letter, option in options.items() if option.lower() in plain]
    if inside:
        # Of the first mentions too the latest is taken: the option named last wins twice.
        first = max(inside, key=lambda letter: plain.index(options[letter].lower()))
        last = max(inside, key=lambda letter: plain.rindex(options[letter].lower()))
        return Read(first, "read"), Read(last, "read")
    nearest = Read(_most_similar(plain, options), "guessed")
    return nearest, nearest


def _most_similar(said: str, options: Mapping[str, str]) -> str:
    """The option with the highest difflib ratio; of equals the last."""
    ratios = {
        letter: difflib.SequenceMatcher(None, option.lower(), said).ratio()
        for letter, option in options.items()
    }
    return max(reversed(list(ratios)), key=lambda letter: ratios[letter])


def mirage(text: str) -> Read:
    """The first of ten patterns over A to D that matches, else A.

    At the start a letter before the end, " or", " and", "/", ","; anywhere "option X", then a colon
    before a letter (also of a word: ": Based on" is B); at the start a letter before ".", '"', ":".
    """
    said = text.split('"answer_choice": "')[-1].strip()
    start = [rf"^\s*([{_MIRAGE}]){end}" for end in ("$", " or", " and", "/", ",")]
    anywhere = [rf"[Oo]ption ([{_MIRAGE}])", rf":\s*([{_MIRAGE}])"]
    behind = [rf"^\s*([{_MIRAGE}]){end}" for end in (r"\.", '"', ":")]
    for pattern in (*start, *anywhere, *behind):
        if found := re.search(pattern, said):
            return Read(found[1], "read")
    return Read("A", "default")


def lm_eval(logprobs: Sequence[float]) -> int:
    """The index of the largest; the first of equals. No text is read."""
    return max(range(len(logprobs)), key=lambda k: (logprobs[k], -k))
