"""Step 1, hypothesise: for each choice explanations that suppose it is right, and their faults.

One greedy explanation a choice, or k samples (temperature 0.7, top-p 0.95). Of several, those with
a fault are left out as long as a sound one remains; the first stands in where none is sound, since
a missing explanation would itself give the verdict away. Faults are kept in the trace.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from medexpert.prompt.choices import naming
from medexpert.prompt.ledger import without_refused
from medexpert.prompt.voc.case import Case, Desk
from medexpert.records import NO_ANSWER, Question

STOP = ("\n\n",)
TEMPERATURE, TOP_P = 0.7, 0.95
MIN_TOKENS = 8
MAX_REPEATS = 3
_HAN = re.compile(r"[\u3400-\u9fff]")
_UNIT = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")
HAN_SHARE = {"en": (0.0, 0.5), "zh": (0.2, 1.0)}
"""Least and greatest share of Chinese characters among the words and characters of a text."""


@dataclass(frozen=True)
class Rationale:
    """`fault` = why it is unsound, "" when it is sound; `finish` as in Completion; `shown` =
    whether it is put before the verifier (a control may show another text in its place)."""

    text: str
    tokens: int
    finish: str
    fault: str
    shown: bool = True


def hypothesise(desk: Desk, cases: Sequence[Case], *, k: int, max_tokens: int) -> None:
    """Fill `draws` with k explanations of every explained choice, and `shown` from them."""
    pairs = [(case, choice) for case in cases for choice in case.explained]
    prompts = [desk.asked(c, "voc.hypothesise", choice=c.named.label(x)) for c, x in pairs]
    for case in cases:
        case.draws = {choice: [] for choice in case.explained}
    sampling = {"temperature": TEMPERATURE, "top_p": TOP_P} if k > 1 else {}
    for draw in range(k):
        made = desk.ledger.complete(
            prompts, max_tokens=max_tokens, stop=STOP, draw=draw, **sampling
        )
        for (case, choice), completion in zip(pairs, made, strict=True):
            text = " ".join(completion.text.split())
            tokens = desk.ledger.engine.count_tokens(text)
            reason = fault(text, choice, case.question, tokens)
            case.draws[choice].append(Rationale(text, completion.tokens, completion.finish, reason))
    for case in cases:
        case.draws = {choice: _noted(draws) for choice, draws in case.draws.items()}
        kept = {c: [row for row in draws if row.shown] for c, draws in case.draws.items()}
        case.shown = [
            {choice: rows[draw % len(rows)].text for choice, rows in kept.items()}
            for draw in range(k)
        ]


def explained(desk: Desk, cases: Sequence[Case], *, k: int, max_tokens: int) -> dict[str, str]:
    """As :func:`hypothesise`, but a refusal of the engine stops nothing: {question id: why} of the
    cases without explanations."""
    return without_refused(
        lambda some: hypothesise(desk, some, k=k, max_tokens=max_tokens),
        cases,
        lambda case: case.question.id,
    )


def _noted(draws: Sequence[Rationale]) -> list[Rationale]:
    """The draws, those that are left out noted as not shown."""
    kept = [row for row in draws if not row.fault] or draws[:1]
    return [replace(row, shown=row in kept) for row in draws]


def contradict(desk: Desk, cases: Sequence[Case], *, max_tokens: int) -> None:
    """Fill `against`: what the model says against every explained choice."""
    pairs = [(case, choice) for case in cases for choice in case.explained]
    prompts = [
        desk.asked(
            case, "voc.contradict", choice=case.named.label(choice), rationale=case.shown[0][choice]
        )
        for case, choice in pairs
    ]
    made = desk.ledger.complete(prompts, max_tokens=max_tokens, stop=STOP)
    for (case, choice), completion in zip(pairs, made, strict=True):
        case.against[choice] = " ".join(completion.text.split())


def fault(text: str, choice: str, question: Question, tokens: int) -> str:
    """Why an explanation of `choice` is unsound, or "".

    `names_another_choice` as the answer · `repeats_itself`: four words in a row more than 3 times ·
    `wrong_language` · `too_short`: fewer than 8 tokens.
    """
    named = naming(question)
    if any(stated not in (choice, NO_ANSWER) for stated in (*named.stated(text), named.read(text))):
        return "names_another_choice"
    units = [unit.casefold() for unit in _UNIT.findall(text)]
    grams = Counter(zip(units, units[1:], units[2:], units[3:], strict=False))
    if grams and max(grams.values()) > MAX_REPEATS:
        return "repeats_itself"
    share = sum(map(bool, map(_HAN.match, units))) / len(units) if units else 0.0
    least, most = HAN_SHARE.get(question.lang, (0.0, 1.0))
    if units and not least <= share <= most:
        return "wrong_language"
    return "too_short" if tokens < MIN_TOKENS else ""
