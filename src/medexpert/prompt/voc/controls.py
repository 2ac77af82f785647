"""Controls: Voc with one thing taken away. Voc is worth its cost only if it beats all of them.

`foreign` shows the explanations of another question, `shuffled` gives each choice the explanation
of another, `filler` puts neutral text of the same length in their place, `direct-only` shows only
the explanation of the choice that the direct prompt gives, `no-context` verifies without the
evidence. What is drawn follows from a hash of seed and question id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from medexpert.prompt.asking import QuestionRefused
from medexpert.prompt.choices import naming
from medexpert.prompt.needs import no_lender
from medexpert.records import Question, UserError, digest

DONORS = 4
"""After so many refused ones a question counts as refused itself: where one in ten is refused, so
many follow each other once in 10,000."""
CONTROLS = ("foreign", "shuffled", "filler", "direct-only", "no-context")
NEUTRAL = {
    "en": "This explanation is left open here. It names no finding, weighs no number and takes no"
    " side in the matter.",
    "zh": "此处的解释留空。它不提任何发现，不权衡任何数字，也不支持任何一方。",
}


def donor(
    question: Question,
    pools: Sequence[Sequence[Question]],
    seed: int,
    refused: Mapping[str, str] | None = None,
) -> Question:
    """The question whose explanations are shown instead: of the same language and labels.

    It is the first that fits from a place given by the hash on, in the first of `pools` that has
    one; the next after those `refused` ({id: why}) by the engine. Raises UserError when none fits,
    and QuestionRefused where all that fit are refused, or DONORS of them.
    """
    labels = naming(question).labels
    refused = refused or {}
    for pool in pools if len(refused) < DONORS else ():
        start = _drawn(question, seed, len(pool)) if pool else 0
        for other in (*pool[start:], *pool[:start]):
            if other.id in refused or other.id == question.id:
                continue
            if other.question.split() == question.question.split():
                continue
            if other.lang == question.lang and naming(other).labels == labels:
                return other
    if refused:
        name, why = next(iter(refused.items()))
        many = "the only one is" if len(refused) == 1 else f"all {len(refused)} tried are"
        told = f"it borrows another question's explanations, and {many} refused ({name}: {why})"
        raise QuestionRefused(UserError(told), question.id)
    raise no_lender(question)


def shuffled(question: Question, shown: Mapping[str, str], seed: int) -> dict[str, str]:
    """Every choice with another's explanation: the list turned by 1 to n - 1 places."""
    names = list(shown)
    if len(names) < 2:
        return dict(shown)
    turn = 1 + _drawn(question, seed, len(names) - 1)
    texts = [shown[name] for name in names]
    return dict(zip(names, texts[turn:] + texts[:turn], strict=True))


def filler(text: str, lang: str, count: Callable[[str], int]) -> str:
    """Neutral text with as many tokens as `text`, or the first length beyond that there is."""
    wanted = count(text)
    source = NEUTRAL.get(lang, NEUTRAL["en"])
    units, joint = (list(source), "") if lang == "zh" else (source.split(), " ")

    def cut(size: int) -> str:
        whole = units * (size // len(units) + 1)
        return joint.join(whole[:size])

    low, high = 0, 1
    while count(cut(high)) < wanted:
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        if count(cut(middle)) < wanted:
            low = middle + 1
        else:
            high = middle
    return cut(low)


def _drawn(question: Question, seed: int, size: int) -> int:
    return int(digest(["control", seed, question.id]), 16) % size
