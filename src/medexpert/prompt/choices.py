"""How prompts name the choices of a question: by their own word, or by a letter.

Yes, no and maybe (in any letter case, or as the question's language says them) are their own
labels: their probabilities carry no bias for a letter. So are 1, 2, 3 ... where the question itself
lists what they stand for. All other choices get A, B, C ... in their order; prompts list `A. text`
and score or read the letter.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from medexpert.prompt import template
from medexpert.prompt.options import LETTERS, printed
from medexpert.prompt.parse import parse_choice, stated_choices
from medexpert.records import UserError

if TYPE_CHECKING:
    from medexpert.records import Question

VERDICTS = ("yes", "no", "maybe")
_WORDS = "pubmedqa.lm_eval"
"""The template whose header says the verdicts in each language."""


@dataclass(frozen=True)
class Naming:
    """The label of every choice, and the text that a prompt prints behind it, in order.

    For words the two are equal; for letters `labels` are A, B ... and `texts` the choices as the
    benchmark prints them (`options.printed`).
    """

    choices: tuple[str, ...]
    labels: tuple[str, ...]
    texts: tuple[str, ...]

    @property
    def lettered(self) -> bool:
        return self.labels != self.texts

    @property
    def options(self) -> dict[str, str]:
        """label -> text, in order: the field `options` of templates."""
        return dict(zip(self.labels, self.texts, strict=True))

    def label(self, choice: str) -> str:
        return self.labels[self.choices.index(choice)]

    def choice(self, label: str) -> str:
        return self.choices[self.labels.index(label)]

    def read(self, text: str) -> str:
        """The choice a text states, or NO_ANSWER; see `parse.parse_choice`."""
        return parse_choice(text, self.choices, labels=self._words)

    def stated(self, text: str) -> list[str]:
        """Every choice the text explicitly states as the answer, in order."""
        return stated_choices(text, self.choices, labels=self._words)

    @property
    def _words(self) -> dict[str, str]:
        return dict(zip(self.choices, self.labels, strict=True))


def naming(question: Question) -> Naming:
    """How prompts name the choices of this question.

    Raises UserError naming the question: fewer than two choices, more than the alphabet has
    letters, one that shows nothing, two that are equal.
    """
    choices = tuple(question.choices)
    try:
        named = name_choices(choices, question.lang)
    except UserError as error:
        if error.where:
            raise
        raise UserError(
            error.what, where=f"question {question.id}", allowed=error.allowed
        ) from None
    return Naming(choices, choices, choices) if _numbered(question.question, choices) else named


def _numbered(text: str, choices: Sequence[str]) -> bool:
    """Whether the choices are 1, 2, 3 ... and the text lists what each stands for, line by line."""
    at = 0
    for number, choice in enumerate(choices, 1):
        at = text.find(f"\n{number}. ", at) + 1
        if choice != str(number) or not at:
            return False
    return True


@lru_cache(maxsize=4096)
def name_choices(choices: tuple[str, ...], lang: str = "en") -> Naming:
    """`naming` for choices alone."""
    _check(choices)
    said = template.lookup(_WORDS, lang).labels
    words = tuple(said.get(choice.casefold(), choice) for choice in choices)
    verdicts = {*VERDICTS, *(word.casefold() for word in said.values())}
    if {choice.casefold() for choice in choices} <= verdicts and len(set(words)) == len(words):
        return Naming(choices, words, words)
    return Naming(choices, tuple(LETTERS[: len(choices)]), printed(choices))


def _check(choices: Sequence[str]) -> None:
    if len(choices) < 2:
        raise UserError(f"{len(choices)} choices", allowed="two or more")
    for number, choice in enumerate(choices, 1):
        # Spaces, control and format characters (a zero-width space) are nothing to see or score.
        if all(unicodedata.category(char)[0] in "ZC" for char in choice):
            raise UserError(f"choice {number}, {choice!r}, shows nothing", allowed="a text")
        if choice in choices[: number - 1]:
            raise UserError(f"choice {choice!r} is there twice", allowed="different choices")
    if len(choices) > len(LETTERS):
        raise UserError(
            f"{len(choices)} choices, more than there are letters", allowed=f"up to {len(LETTERS)}"
        )
