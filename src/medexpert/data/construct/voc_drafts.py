"""An item of `voc.py` on its way: every choice explained, then verified in cyclic orders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medexpert.data.construct.teacher import Chosen, Refusal, Teacher, Written
from medexpert.data.construct.voc_items import NO_FOLD, Solved
from medexpert.data.readers.pubmedqa import official_split
from medexpert.records import UserError, unknown_name

HYPOTHESISE, VERIFY, CHECK, REASON = "voc.hypothesise", "voc.verify", "voc.check", "cot.reason"
DIRECT, QUESTION_ONLY, LISTED = "pubmedqa.lm_eval", "pubmedqa.question_only", "direct.choices"
TEMPLATES = (HYPOTHESISE, VERIFY, CHECK, REASON, DIRECT, QUESTION_ONLY, LISTED)
VERDICTS = ("generated", "scored")
STOP = ("\n\n",)
CHECK_STOP = {
    "en": ("\nQuestion:", "\nAbstract:", "\nContext:"),
    "zh": ("\n问题：", "\n摘要：", "\n背景："),
}
"""Endpoints take four at most."""
_FINAL = re.compile(r"[\s*#_]*(?:\bfinal answer\b|最终答案)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|[。！？]")


@dataclass(frozen=True)
class VocSettings:
    """`fold` is the PubMedQA fold that is trained on (-1: no item of its labelled set may be used).

    `orders` cyclic orders are verified (all there are when the choices are fewer).
    """

    fold: int = NO_FOLD
    verdict: str = "generated"
    orders: int = 3
    min_agreement: float = 0.66
    max_hard: float = 0.1
    max_length_gap: float = 0.25
    max_tokens: int = 128
    check_tokens: int = 192
    balance: int = 1

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise unknown_name("verdict", self.verdict, VERDICTS, where="construct")
        last = len(official_split().folds) - 1
        if not NO_FOLD <= self.fold <= last:
            raise UserError(f"fold = {self.fold}", allowed=f"{NO_FOLD} (none) to {last}")
        for name in ("orders", "max_tokens", "check_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} = {getattr(self, name)}", allowed="1 or more")
        for name in ("min_agreement", "max_length_gap"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} = {getattr(self, name)}", allowed="0 to 1")
        if not 0 <= self.max_hard < 1:
            raise UserError(f"max_hard = {self.max_hard}", allowed="0 to under 1")
        if self.balance not in (0, 1):
            raise UserError(f"balance = {self.balance}", allowed="0 (as it comes) or 1 (equal)")


@dataclass(frozen=True)
class Explained:
    """The explanation of one choice. `fault` = why it is not learned from, "" when it is."""

    text: str
    fault: str
    prompt: str


@dataclass(frozen=True)
class Pass:
    """One verification. `check` is the text before a generated verdict, "" of a scored one;
    `scores` the labels' probabilities, empty of a generated one."""

    order: tuple[str, ...]
    verdict: str
    check: str
    scores: Mapping[str, float]
    prompt: str


@dataclass
class Draft:
    """An item on its way. `refusal` ends it."""

    item: Solved
    options: Mapping[str, str]
    explained: dict[str, Explained] = field(default_factory=dict)
    passes: list[Pass] = field(default_factory=list)
    refusal: str = ""

    @property
    def labels(self) -> dict[str, str]:
        """choice -> its label."""
        return dict(zip(self.item.choices, self.options, strict=True))

    @property
    def opening(self) -> dict[str, Any]:
        """The fields with which every prompt of the item begins."""
        return {
            "question": self.item.question,
            "evidence": "\n".join(self.item.contexts),
            "options": dict(self.options),
        }

    @property
    def agreed(self) -> int:
        """Verifications that ended at the gold answer."""
        return sum(one.verdict == self.item.answer for one in self.passes)

    def shown(self, order: Sequence[str]) -> list[list[str]]:
        """[label, explanation] of each choice, as the verification shows them."""
        return [[self.labels[choice], self.explained[choice].text] for choice in order]


# -- explaining --------------------------------------------------------------------------------


def explain(
    drafts: Sequence[Draft], teacher: Teacher, settings: VocSettings, lang: str, seed: int
) -> None:
    """Let the teacher suppose each choice right and say why; a refusal is noted in the draft."""
    asked = [(draft, choice) for draft in drafts for choice in draft.item.choices]
    fields = [hypothesis(draft, choice) for draft, choice in asked]
    made = teacher.write(
        HYPOTHESISE, fields, lang=lang, max_tokens=settings.max_tokens, seed=seed, stop=STOP
    )
    for (draft, choice), written in zip(asked, made, strict=True):
        if isinstance(written, Refusal):
            draft.refusal = draft.refusal or written.why
        else:
            draft.explained[choice] = _explained(draft.item, choice, written, teacher)


def hypothesis(draft: Draft, choice: str) -> dict[str, Any]:
    """The fields of `voc.hypothesise` for a choice."""
    return {**draft.opening, "choice": draft.labels[choice]}


def _explained(item: Solved, choice: str, written: Written, teacher: Teacher) -> Explained:
    text = " ".join(written.text.split())
    cut = False
    if written.finish == "length":
        ends = [match.end() for match in _SENTENCE_END.finditer(text)]
        cut = not ends
        text = text[: ends[-1]] if ends else text
    fault = teacher.fault(text, choice, item.choices, lang=item.lang)
    return Explained(text, fault or ("cut_off" if cut else ""), written.prompt_hash)


# -- verifying ---------------------------------------------------------------------------------


def cyclic(choices: Sequence[str], number: int) -> list[tuple[str, ...]]:
    """Up to `number` rotations of the choices, evenly spread, the declared order first."""
    size = len(choices)
    count = min(number, size)
    starts = [turn * size // count for turn in range(count)]
    return [(*choices[start:], *choices[:start]) for start in starts]


def verify(
    drafts: Sequence[Draft], teacher: Teacher, settings: VocSettings, lang: str, seed: int
) -> None:
    """Let the teacher compare the explanations in every order and note where each ended."""
    asked = [
        (draft, order) for draft in drafts for order in cyclic(draft.item.choices, settings.orders)
    ]
    fields = [{**draft.opening, "rationales": draft.shown(order)} for draft, order in asked]
    if not asked:
        return
    if settings.verdict == "generated":
        written = teacher.write(
            CHECK, fields, lang=lang, max_tokens=settings.check_tokens, seed=seed,
            stop=CHECK_STOP[lang],
        )  # fmt: skip
        for (draft, order), said in zip(asked, written, strict=True):
            _note(draft, said, lambda s, d=draft, o=order: _read(d.item, o, s, teacher))
        return
    for labels in dict.fromkeys(tuple(draft.options) for draft, _ in asked):
        members = [k for k, (draft, _) in enumerate(asked) if tuple(draft.options) == labels]
        chosen = teacher.choose(VERIFY, [fields[k] for k in members], labels, lang=lang)
        for k, said_ in zip(members, chosen, strict=True):
            draft, order = asked[k]
            _note(draft, said_, lambda s, d=draft, o=order: _likeliest(d.item, o, s))


def _note(draft: Draft, said: Any, made: Any) -> None:
    if isinstance(said, Refusal):
        draft.refusal = draft.refusal or said.why
    else:
        draft.passes.append(made(said))


def _read(item: Solved, order: tuple[str, ...], said: Written, teacher: Teacher) -> Pass:
    verdict = teacher.read(said.text, item.choices, lang=item.lang)
    final = _FINAL.search(said.text)
    check = " ".join((said.text[: final.start()] if final else said.text).split())
    return Pass(order, verdict, check, {}, said.prompt_hash)


def _likeliest(item: Solved, order: tuple[str, ...], said: Chosen) -> Pass:
    scores = dict(zip(item.choices, said.probabilities, strict=True))
    return Pass(order, max(item.choices, key=scores.__getitem__), "", scores, said.prompt_hash)
