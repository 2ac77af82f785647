"""Verification-of-Choice as teacher: training data for rationale, hypothesis, verification, answer.

For a solved question of a training split (`voc_items.py`) the teacher explains every choice as if
it were right, then verifies the explanations side by side in several cyclic orders. `generated`
verdicts are written out and read by the parser; `scored` ones are the likeliest label. An item is
"consistent" when at least `min_agreement` of the orders end at the gold answer; any other is
"hard": a share of those is kept, with the gold answer forced and `bucket` saying so.

Records of an item, each an Example of the template that is asked with the same words:

- rationale (`cot.reason`): question -> the gold choice's explanation, answer
- hypothesis (`voc.hypothesise`): question, a choice -> its explanation, for every choice
- verify: explanations -> the check that ended at the gold answer (generated: `voc.check`), or the
  gold label in every order shown (scored: `voc.verify`)
- direct: question -> answer
- pairs for preference training: explanation and answer of gold against those of the wrong choice
  that the verdicts liked best; a check that ended at gold against one that endorsed a wrong choice.
  Both sides differ in length by `max_length_gap` of the longer at most, in characters.

Explanations that are unsound by the rules of the strategy `voc` (`Teacher.fault`) or were cut off
within their first sentence are not learned from; they stay in the verification, as their absence
would give the verdict away. After Verification-of-Choice of arXiv 2312.01040; the thresholds are
this project's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medexpert.data.construct.rejects import Outcome, Reject
from medexpert.data.construct.teacher import Teacher
from medexpert.data.construct.voc_drafts import (
    CHECK,
    DIRECT,
    HYPOTHESISE,
    LISTED,
    QUESTION_ONLY,
    REASON,
    VERIFY,
    Draft,
    Pass,
    VocSettings,
    explain,
    hypothesis,
    verify,
)
from medexpert.data.construct.voc_items import Solved, pmids_of
from medexpert.records import NO_ANSWER, Example, digest

CONSISTENT, HARD = "consistent", "hard"


def build(
    items: Sequence[Solved], teacher: Teacher, settings: VocSettings, *, seed: int
) -> list[Outcome]:
    """Records and rejects of the items, item by item in order."""
    drafts: dict[int, Draft] = {}
    for lang in dict.fromkeys(item.lang for item in items):
        members = [index for index, item in enumerate(items) if item.lang == lang]
        made = [Draft(items[i], teacher.options(items[i].choices, lang=lang)) for i in members]
        explain(made, teacher, settings, lang, seed)
        verify([draft for draft in made if not draft.refusal], teacher, settings, lang, seed)
        drafts.update(zip(members, made, strict=True))
    found: list[Outcome] = []
    for index in range(len(items)):
        found += records(drafts[index], teacher, settings, seed=seed)
    return found


def records(draft: Draft, teacher: Teacher, settings: VocSettings, *, seed: int) -> list[Outcome]:
    """The item's examples and rejects; one reject alone when nothing can be learned from it."""
    item = draft.item
    if draft.refusal:
        return [_reject(draft, "teacher_refused", {"why": draft.refusal})]
    gold = draft.explained[item.answer]
    if gold.fault:
        return [_reject(draft, gold.fault)]
    maker = _Maker(draft, teacher, settings, seed)
    return [*maker.rationale(), *maker.hypotheses(), *maker.verified(), *maker.direct(),
            *maker.explained_pair(), *maker.checked_pair()]  # fmt: skip


def _reject(draft: Draft, reason: str, more: Mapping[str, Any] | None = None) -> Reject:
    detail = {
        "question": draft.item.question,
        "answer": draft.item.answer,
        "explanations": {c: [one.text, one.fault] for c, one in draft.explained.items()},
        "verdicts": [one.verdict for one in draft.passes],
    }
    item = draft.item
    return Reject(item.id, item.where, reason, item.source, detail | dict(more or {}))


class _Maker:
    """Makes the examples of one item, all with the same account of where they come from."""

    def __init__(self, draft: Draft, teacher: Teacher, settings: VocSettings, seed: int) -> None:
        self.draft, self.item, self.teacher = draft, draft.item, teacher
        self.settings = settings
        agreed, asked = draft.agreed, len(draft.passes)
        self.bucket = CONSISTENT if agreed >= settings.min_agreement * asked else HARD
        self.gold = draft.labels[self.item.answer]
        pmids = pmids_of(self.item)
        self.ids = {
            **({"pmid": pmids[0]} if len(pmids) == 1 else {}),
            **self.item.ids,
            "item": self.item.id,
            "teacher": teacher.name,
            "bucket": self.bucket,
            "agreement": f"{agreed}/{asked}",
            "seed": str(seed),
        }

    def _example(
        self, what: str, template: str, fields: Mapping[str, Any], asked: str, prompt: str
    ) -> Example:
        """`asked` = the template that the teacher was asked with, `prompt` the digest of that."""
        noted = {"template": self.teacher.template_id(asked, self.item.lang), "prompt": prompt}
        return Example(
            id=f"{self.item.id}/{what}",
            source=self.item.source,
            kind="task",
            template=template,
            fields=fields,
            lang=self.item.lang,
            licence=self.item.licence,
            ids={**self.ids, **noted},
        )

    def _answered(self, choice: str) -> dict[str, str]:
        return {
            "rationale": self.draft.explained[choice].text,
            "answer": self.draft.labels[choice],
        }

    def rationale(self) -> Iterator[Outcome]:
        """question -> explanation of gold, answer"""
        fields = {**self.draft.opening, **self._answered(self.item.answer)}
        prompt = self.draft.explained[self.item.answer].prompt
        yield self._example("rationale", REASON, fields, HYPOTHESISE, prompt)

    def hypotheses(self) -> Iterator[Outcome]:
        """question, choice -> its explanation; a reject for an explanation with a fault"""
        for choice, one in self.draft.explained.items():
            what = f"hypothesis-{self.draft.labels[choice]}"
            fields = {**hypothesis(self.draft, choice), "rationale": one.text}
            if one.fault:
                item = self.item
                detail = {"fields": fields, "prompt": one.prompt}
                yield Reject(f"{item.id}/{what}", item.where, one.fault, item.source, detail)
            else:
                yield self._example(what, HYPOTHESISE, fields, HYPOTHESISE, one.prompt)

    def verified(self) -> Iterator[Outcome]:
        """explanations -> verdict: the checks that ended at gold, or gold in every order"""
        for number, one in enumerate(self.draft.passes):
            fields = {**self.draft.opening, "rationales": self.draft.shown(one.order)}
            if self.settings.verdict == "scored" or (self.bucket == HARD and not self.draft.agreed):
                asked = VERIFY if self.settings.verdict == "scored" else CHECK
                yield self._example(
                    f"verify-{number}", VERIFY, {**fields, "answer": self.gold}, asked, one.prompt
                )
            elif one.verdict == self.item.answer and one.check:
                found = {**fields, "check": one.check, "answer": self.gold}
                yield self._example(f"verify-{number}", CHECK, found, CHECK, one.prompt)

    def direct(self) -> Iterator[Outcome]:
        """question -> answer, as `direct` asks it"""
        worded = list(self.draft.options) == list(self.draft.options.values())
        fields: dict[str, Any] = {"question": self.item.question, "answer": self.gold}
        if not worded:
            template, fields = LISTED, {**self.draft.opening, "answer": self.gold}
        elif self.item.contexts:
            template = DIRECT
            fields["contexts"] = list(self.item.contexts)
        else:
            template, fields["contexts"] = QUESTION_ONLY, []
        yield self._example("direct", template, fields, template, "")

    # -- pairs ---------------------------------------------------------------------------------

    def explained_pair(self) -> Iterator[Outcome]:
        """explanation and answer of gold against those of a wrong choice, best liked first"""
        good = self._answered(self.item.answer)
        wrong = [c for c in self._wrong_by_liking() if not self.draft.explained[c].fault]
        for choice in wrong:
            bad = self._answered(choice)
            if self._alike(good, bad):
                fields = {**self.draft.opening, **good, "rejected": bad}
                prompt = self.draft.explained[self.item.answer].prompt
                yield self._example("pair-rationale", REASON, fields, HYPOTHESISE, prompt)
                return
        if wrong:
            yield self._too_unlike("pair-rationale", good, self._answered(wrong[0]))

    def checked_pair(self) -> Iterator[Outcome]:
        """a check that ended at gold against one that endorsed a wrong choice, of the same item

        Labels stand for the same choices in every order, so that both fit the first one's prompt.
        """
        passes = [one for one in self.draft.passes if one.check]
        good = [one for one in passes if one.verdict == self.item.answer]
        bad = [one for one in passes if one.verdict not in (self.item.answer, NO_ANSWER)]
        for right in good:
            for wrong in bad:
                chosen, rejected = self._checked(right), self._checked(wrong)
                if self._alike(chosen, rejected):
                    shown = {"rationales": self.draft.shown(right.order)}
                    fields = {**self.draft.opening, **shown, **chosen, "rejected": rejected}
                    yield self._example("pair-verify", CHECK, fields, CHECK, right.prompt)
                    return
        if good and bad:
            yield self._too_unlike("pair-verify", self._checked(good[0]), self._checked(bad[0]))

    def _checked(self, one: Pass) -> dict[str, str]:
        return {"check": one.check, "answer": self.draft.labels[one.verdict]}

    def _wrong_by_liking(self) -> list[str]:
        """The wrong choices, that with the most verdicts (scored: probability) first; equals in
        the declared order."""
        liked: Counter[str] = Counter()
        for one in self.draft.passes:
            liked.update(one.scores or {one.verdict: 1})
        wrong = [choice for choice in self.item.choices if choice != self.item.answer]
        return sorted(wrong, key=lambda choice: -liked[choice])

    def _alike(self, first: Mapping[str, str], second: Mapping[str, str]) -> bool:
        sizes = sorted(sum(map(len, side.values())) for side in (first, second))
        return sizes[1] - sizes[0] <= self.settings.max_length_gap * sizes[1]

    def _too_unlike(self, what: str, good: Mapping[str, str], bad: Mapping[str, str]) -> Reject:
        item = self.item
        detail = {"chosen": dict(good), "rejected": dict(bad)}
        return Reject(f"{item.id}/{what}", item.where, "length_mismatch", item.source, detail)


# -- over all items ----------------------------------------------------------------------------


def left_out(
    examples: Iterator[Mapping[str, Any]], settings: VocSettings, *, seed: int
) -> dict[str, str]:
    """{example id: reason}: hard items over their share, verify records over the rarest answer's.

    Of the hard items those with the smallest hash stay, at most `max_hard` of all items kept. Of
    verify records every answer keeps as many as the one with the fewest, within a language and a
    set of labels; different items before another order of the same.
    """
    of_item: dict[str, list[str]] = {}
    buckets: dict[str, str] = {}
    verify: dict[tuple[Any, ...], dict[str, list[tuple[int, str, str]]]] = {}
    for example in examples:
        fields, ids, name = example["fields"], example["ids"], str(example["id"])
        item = ids["item"]
        of_item.setdefault(item, []).append(name)
        buckets[item] = ids["bucket"]
        if example["template"] in (VERIFY, CHECK) and "rejected" not in fields:
            group = (example["lang"], *fields["options"])
            place = int(name.rpartition("-")[2])
            row = (place, digest([seed, item]), name)
            verify.setdefault(group, {}).setdefault(fields["answer"], []).append(row)
    out: dict[str, str] = {}
    hard = sorted((i for i in buckets if buckets[i] == HARD), key=lambda i: digest([seed, i]))
    consistent = len(buckets) - len(hard)
    room = int(settings.max_hard * consistent / (1 - settings.max_hard) + 1e-9)
    for item in hard[room:]:
        out.update(dict.fromkeys(of_item[item], "hard_cap"))
    if settings.balance:
        for answers in verify.values():
            kept = {a: sorted(r for r in rows if r[2] not in out) for a, rows in answers.items()}
            least = min((len(rows) for rows in kept.values() if rows), default=0)
            for rows in kept.values():
                out.update((name, "class_balance") for _, _, name in rows[least:])
    return out
