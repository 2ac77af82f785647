"""Steps 2 and 3: the explanations side by side, in one order or several, and the verdict from them.

Scored: ln p of the labels behind `Final answer:`, averaged over the orders of a draw label by label
(in cyclic orders a choice meets every place, so that no place is favoured), then the probabilities
averaged over the draws. Generated: the model writes what is wrong with each explanation and a final
answer, which is parsed; passes vote. There are max(draws, orders) passes: pass i shows draw i and
order i, each counted round.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import permutations
from typing import Any

from medexpert.engines.base import NoLogprobs
from medexpert.prompt.asking import LOWEST, Scored, best, log_softmax
from medexpert.prompt.reasoning import completed
from medexpert.prompt.voc.case import Case, Desk
from medexpert.records import NO_ANSWER, UserError

PERMUTATIONS = ("1", "cyclic", "all")
MOST_FOR_ALL = 5
"""5! = 120 orders; six choices would be 720 passes a question."""


@dataclass(frozen=True)
class Pass:
    """One verify pass: which draw was shown in which order, and ln p of each contested choice
    (normalised over them). `prior`: the same without the evidence, which was subtracted (PMI)."""

    draw: int
    order: tuple[str, ...]
    logprobs: Mapping[str, float]
    prior: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """One written check. `parse` is "ok", "unparsed" or "not_contested" (a choice that is out)."""

    draw: int
    order: tuple[str, ...]
    text: str
    tokens: int
    finish: str
    choice: str
    parse: str


@dataclass(frozen=True)
class Verdict:
    """Of written checks. `decided_by` is "generated", "scored" (where they gave none or tied) or
    "nothing" (the same without log-probabilities)."""

    choice: str
    decided_by: str
    votes: Mapping[str, int]
    checks: tuple[Check, ...]


def orders(choices: Sequence[str], which: str) -> list[tuple[str, ...]]:
    """The orders in which explanations are shown: the given one, its rotations, or all.

    Raises UserError for "all" of more than 5 choices.
    """
    if which == "1":
        return [tuple(choices)]
    if which == "cyclic":
        return [(*choices[turn:], *choices[:turn]) for turn in range(len(choices))]
    if len(choices) > MOST_FOR_ALL:
        raise UserError(
            f"permutations=all of {len(choices)} choices",
            allowed=f"up to {MOST_FOR_ALL} choices, or permutations=cyclic",
        )
    return list(permutations(choices))


def plan(case: Case, which: str) -> list[tuple[int, tuple[str, ...]]]:
    """(draw, order) of every pass."""
    found = orders(case.explained, which)
    size = max(len(case.shown), len(found))
    return [(i % len(case.shown), found[i % len(found)]) for i in range(size)]


def _sides(case: Case, draw: int, order: Sequence[str]) -> list[tuple[str, str]]:
    return [(case.named.label(choice), case.shown[draw][choice]) for choice in order]


def verify(
    desk: Desk, cases: Sequence[Case], which: str, *, blind: bool = False, pmi: bool = False
) -> None:
    """Fill `passes`. `blind` shows no evidence; `pmi` subtracts what that gives.

    Raises UserError where there is nothing to subtract: a label without any probability.
    """
    todo = [(case, draw, order) for case in cases for draw, order in plan(case, which)]

    def scores(hidden: bool) -> list[dict[str, float]]:
        asked: list[Scored] = []
        for case, draw, order in todo:
            fields: dict[str, Any] = {"rationales": _sides(case, draw, order)}
            if hidden:
                fields["evidence"] = ""
            labels = [case.named.label(choice) for choice in case.contested]
            asked.append(desk.scored(case, "voc.verify", labels, **fields))
        rows = desk.ledger.score(asked)
        return [
            dict(zip(case.contested, log_softmax(row), strict=True))
            for (case, _, _), row in zip(todo, rows, strict=True)
        ]

    seen = scores(blind)
    priors = scores(True) if pmi else [{} for _ in todo]
    for (case, draw, order), row, prior in zip(todo, seen, priors, strict=True):
        if -math.inf in prior.values():
            raise UserError(
                "a label has no probability without the evidence, which pmi subtracts",
                where=f"question {case.question.id}",
                allowed="pmi=false, or an engine that scores every label",
            )
        net = {choice: value - prior.get(choice, 0.0) for choice, value in row.items()}
        normal = dict(zip(net, log_softmax(list(net.values())), strict=True))
        case.passes.append(Pass(draw, order, normal, prior))


def average(case: Case) -> dict[str, float]:
    """ln p of each contested choice: mean ln p over a draw's orders, mean p over the draws."""
    by_draw: dict[int, list[Pass]] = {}
    for one in case.passes:
        by_draw.setdefault(one.draw, []).append(one)
    shares = []
    for rows in by_draw.values():
        means = [sum(max(r.logprobs[c], LOWEST) for r in rows) / len(rows) for c in case.contested]
        shares.append([math.exp(value) for value in log_softmax(means)])
    totals = [math.log(max(math.fsum(column), 1e-300)) for column in zip(*shares, strict=True)]
    return dict(zip(case.contested, log_softmax(totals), strict=True))


def flip_rate(case: Case) -> float:
    """Share of passes whose own verdict differs from the averaged one."""
    common = average(case)
    verdict = best(case.contested, [common[c] for c in case.contested])
    own = [best(case.contested, [p.logprobs[c] for c in case.contested]) for p in case.passes]
    return sum(one != verdict for one in own) / len(own)


def check(desk: Desk, cases: Sequence[Case], which: str, *, blind: bool, max_tokens: int) -> None:
    """Fill `verdict` from written checks; where they give none, or tie, from scored passes."""
    todo = [(case, draw, order) for case in cases for draw, order in plan(case, which)]
    hidden = {"evidence": ""} if blind else {}
    prompts = [
        desk.asked(case, "voc.check", rationales=_sides(case, draw, order), **hidden)
        for case, draw, order in todo
    ]
    asked = [case.question for case, _, _ in todo]
    made = completed(asked, prompts, desk.ledger, max_tokens=max_tokens)
    found: dict[Case, list[Check]] = {case: [] for case in cases}
    for (case, draw, order), completion in zip(todo, made, strict=True):
        choice = case.named.read(completion.text)
        parse = "unparsed" if choice == NO_ANSWER else "ok"
        if choice not in (*case.contested, NO_ANSWER):
            choice, parse = NO_ANSWER, "not_contested"
        text, tokens = completion.text.strip(), completion.tokens
        found[case].append(Check(draw, order, text, tokens, completion.finish, choice, parse))
    open_cases = []
    for case in cases:
        checks = tuple(found[case])
        votes = Counter(one.choice for one in checks if one.choice != NO_ANSWER)
        leaders = [c for c in case.contested if votes and votes[c] == max(votes.values())]
        decided = leaders[0] if len(leaders) == 1 else NO_ANSWER
        by = "nothing" if decided == NO_ANSWER else "generated"
        case.verdict = Verdict(decided, by, dict(votes), checks)
        if decided == NO_ANSWER:
            open_cases.append((case, leaders or list(case.contested)))
    if open_cases:
        _fall_back(desk, open_cases, which, blind)


def _fall_back(
    desk: Desk, open_cases: Sequence[tuple[Case, list[str]]], which: str, blind: bool
) -> None:
    try:
        verify(desk, [case for case, _ in open_cases], which, blind=blind)
    except NoLogprobs:
        return
    for case, among in open_cases:
        common = average(case)
        choice = best(among, [common[c] for c in among])
        assert case.verdict is not None
        case.verdict = Verdict(choice, "scored", case.verdict.votes, case.verdict.checks)


def ptrue(desk: Desk, cases: Sequence[Case], *, blind: bool) -> None:
    """Fill `ptrue`: the log-softmax over the contested choices of the margin ln p(yes) - ln p(no)
    of "is this answer with this explanation fully supported?", averaged over the draws."""
    hidden = {"evidence": ""} if blind else {}
    todo = [(c, x, draw) for c in cases for x in c.contested for draw in range(len(c.shown))]
    asked = [
        desk.scored(
            case, "voc.ptrue", ("true", "false"), choice=case.named.label(choice),
            rationale=case.shown[draw].get(choice, ""), **hidden,
        )
        for case, choice, draw in todo
    ]  # fmt: skip
    margins: dict[tuple[Case, str], list[float]] = {}
    for (case, choice, _), (yes, no) in zip(todo, desk.ledger.score(asked), strict=True):
        margins.setdefault((case, choice), []).append(max(yes, LOWEST) - max(no, LOWEST))
    for case in cases:
        rows = [margins[case, choice] for choice in case.contested]
        means = [math.fsum(row) / len(row) for row in rows]
        case.ptrue = dict(zip(case.contested, log_softmax(means), strict=True))


def as_trace(case: Case) -> dict[str, Any]:
    """`verify`, `flip_rate`, and of written checks `verdict` and `parse`."""
    found: dict[str, Any] = {}
    if case.passes:
        rows = [{k: v for k, v in asdict(one).items() if k != "prior" or v} for one in case.passes]
        found |= {"verify": rows, "flip_rate": flip_rate(case)}
    if case.verdict is not None:
        found["verdict"] = asdict(case.verdict)
        found["parse"] = [one.parse for one in case.verdict.checks]
    return found
