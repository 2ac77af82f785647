"""VoC-built data with a scripted teacher: kept, hard, rejected, balanced; what may be asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.data.build.own import own_example
from medexpert.data.construct.rejects import REASONS, Reject
from medexpert.data.construct.teacher import Chosen, Fields, Refusal, Written
from medexpert.data.construct.voc import build, left_out
from medexpert.data.construct.voc_drafts import CHECK, HYPOTHESISE, VERIFY, VocSettings, cyclic
from medexpert.data.construct.voc_items import Solved, solved
from medexpert.data.readers.pubmedqa import official_split
from medexpert.prompt.choices import name_choices
from medexpert.prompt.voc import fault
from medexpert.records import Example, Question, UserError

ROW: dict[str, Any] = {
    "id": "99000001", "QUESTION": "Does rest shorten the cough?",
    "CONTEXTS": ["Forty adults rested.", "They coughed for 3 days."], "LABELS": [],
    "LONG_ANSWER": "Rest shortened it.", "final_decision": "yes",
}  # fmt: skip
DRUGS = {
    "id": "m1", "question": "Which drug thins the blood?", "answer": 1,
    "choices": ["ferin", "velorin", "talin", "borin"],
}  # fmt: skip


class Scripted:
    """Explains by naming the choice; verdicts come from a function of the order shown."""

    name, identity = "scripted", "scripted 1"

    def __init__(
        self,
        verdict: Callable[[Sequence[str]], str] = lambda order: "yes",
        explain: Callable[[str], str] | None = None,
    ) -> None:
        self.verdict = verdict
        self.explain = explain or (
            lambda c: f"The abstract states several plain findings that speak for {c} here."
        )
        self.asked: list[tuple[str, Fields]] = []

    def template_id(self, template: str, lang: str) -> str:
        return f"{template}@{lang}"

    def options(self, choices: Sequence[str], *, lang: str) -> Mapping[str, str]:
        return name_choices(tuple(choices), lang).options

    def read(self, text: str, choices: Sequence[str], *, lang: str) -> str:
        return name_choices(tuple(choices), lang).read(text)

    def fault(self, text: str, choice: str, choices: Sequence[str], *, lang: str) -> str:
        return fault(text, choice, Question("", "", tuple(choices), choice, lang=lang),
                     len(text.split()))  # fmt: skip

    def write(
        self, template: str, fields: Sequence[Fields], *, lang: str, max_tokens: int, seed: int,
        stop: Sequence[str] = (),
    ) -> list[Written | Refusal]:  # fmt: skip
        out: list[Written | Refusal] = []
        for row in fields:
            self.asked.append((template, row))
            text = self._text(template, row)
            if text == "REFUSE":
                out.append(Refusal("too long"))
                continue
            cut = text.endswith("...")
            out.append(Written(text.removesuffix("..."), 9, "length" if cut else "stop",
                               f"h{len(self.asked)}"))  # fmt: skip
        return out

    def _text(self, template: str, row: Fields) -> str:
        if template == HYPOTHESISE:
            return self.explain(row["choice"])
        found = self.verdict([label for label, _ in row["rationales"]])
        if not found:
            return "I cannot say."
        return f"The one for {found} alone holds up well.\nFinal answer: {found}"

    def choose(
        self, template: str, fields: Sequence[Fields], choices: Sequence[str], *, lang: str
    ) -> list[Chosen | Refusal]:
        out: list[Chosen | Refusal] = []
        for row in fields:
            self.asked.append((template, row))
            found = self.verdict([label for label, _ in row["rationales"]])
            shares = [0.7 if c == found else 0.3 / (len(choices) - 1) for c in choices]
            out.append(Chosen(tuple(shares), f"h{len(self.asked)}"))
        return out


def item(row: Mapping[str, Any] = ROW, fold: int = -1, **changes: Any) -> Solved:
    found = solved("f:1", {**row, **changes}, source="s", fold=fold)
    assert isinstance(found, Solved)
    return found


def made(
    teacher: Scripted, *items: Solved, **settings: Any
) -> tuple[dict[str, Example], dict[str, Reject]]:
    outcomes = build(items or [item()], teacher, VocSettings(**settings), seed=3)
    return (
        {o.id: o for o in outcomes if isinstance(o, Example)},
        {o.id: o for o in outcomes if isinstance(o, Reject)},
    )


def test_a_consistent_item_gives_all_records() -> None:
    teacher = Scripted(lambda order: "no" if order[0] == "no" else "yes")
    found, rejects = made(teacher)
    assert [name.partition("/")[2] for name in found] == [
        "rationale", "hypothesis-yes", "hypothesis-no", "hypothesis-maybe", "verify-0",
        "verify-2", "direct", "pair-rationale", "pair-verify",
    ]  # fmt: skip
    assert not rejects
    orders = [[label for label, _ in row["rationales"]] for t, row in teacher.asked if t == CHECK]
    assert orders == [["yes", "no", "maybe"], ["no", "maybe", "yes"], ["maybe", "yes", "no"]]
    opening = {
        "question": ROW["QUESTION"], "evidence": "Forty adults rested.\nThey coughed for 3 days.",
        "options": {"yes": "yes", "no": "no", "maybe": "maybe"},
    }  # fmt: skip
    reasons = {c: teacher.explain(c) for c in ("yes", "no", "maybe")}
    rationale = found["99000001/rationale"]
    assert rationale.template == "cot.reason"
    assert rationale.fields == {**opening, "rationale": reasons["yes"], "answer": "yes"}
    assert rationale.ids == {
        "pmid": "99000001", "item": "99000001", "teacher": "scripted", "bucket": "consistent",
        "agreement": "2/3", "seed": "3", "template": "voc.hypothesise@en", "prompt": "h1",
    }  # fmt: skip
    assert found["99000001/hypothesis-no"].fields == {
        **opening, "choice": "no", "rationale": reasons["no"],
    }  # fmt: skip
    verify = found["99000001/verify-2"]
    assert verify.template == CHECK
    assert verify.fields["rationales"][0] == ["maybe", reasons["maybe"]]
    assert verify.fields["check"] == "The one for yes alone holds up well."
    assert found["99000001/direct"].fields["contexts"] == ROW["CONTEXTS"]
    pair = found["99000001/pair-rationale"].fields  # no had a verdict, maybe had none
    assert pair["rejected"] == {"rationale": reasons["no"], "answer": "no"}
    checks = found["99000001/pair-verify"].fields
    assert (checks["answer"], checks["rejected"]["answer"]) == ("yes", "no")
    assert checks["rejected"]["check"] == "The one for no alone holds up well."


def test_every_record_is_one_a_recipe_can_read() -> None:
    for verdict in ("generated", "scored"):
        teacher = Scripted(lambda order: "no" if order[0] == "no" else "yes")
        zh = item(lang="zh", id="zh1")
        found, _ = made(teacher, item(), zh, item(DRUGS), verdict=verdict)
        assert len(found) > 12
        for example in found.values():
            (read,) = own_example("f:1", {**asdict(example), "source": "mine"})
            assert read.fields == example.fields


@pytest.mark.parametrize(
    ("verdicts", "bucket"),
    [
        ("yyy", "consistent"), ("yny", "consistent"), ("ynn", "hard"), ("y--", "hard"),
        ("nnn", "hard"),
    ],
)  # fmt: skip
def test_two_of_three_decide(verdicts: str, bucket: str) -> None:
    words = {"y": "yes", "n": "no", "-": ""}
    said = [words[v] for v in verdicts]
    found, _ = made(Scripted(lambda _: said.pop(0)))
    assert {example.ids["bucket"] for example in found.values()} == {bucket}
    assert found["99000001/rationale"].ids["agreement"] == f"{verdicts.count('y')}/3"
    verify = [e for name, e in found.items() if "/verify" in name]
    assert verify
    assert {e.fields["answer"] for e in verify} == {"yes"}  # gold is forced in the hard ones
    forced = [e for e in verify if e.template == VERIFY]
    assert bool(forced) == ("y" not in verdicts)


def test_scored_verdicts_teach_gold_in_every_order() -> None:
    found, _ = made(Scripted(lambda order: "no" if order[0] == "no" else "yes"), verdict="scored")
    verify = {name: e for name, e in found.items() if "/verify" in name}
    assert len(verify) == 3
    assert {(e.template, e.fields["answer"]) for e in verify.values()} == {(VERIFY, "yes")}
    assert "99000001/pair-verify" not in found
    assert found["99000001/pair-rationale"].fields["rejected"]["answer"] == "no"


def test_lettered_choices() -> None:
    found, _ = made(Scripted(lambda order: "B"), item(DRUGS))
    assert found["m1/rationale"].fields["options"] == dict(
        zip("ABCD", DRUGS["choices"], strict=True)
    )
    assert found["m1/rationale"].fields["answer"] == "B"
    assert found["m1/direct"].template == "direct.choices"
    assert [n for n in found if "verify" in n] == ["m1/verify-0", "m1/verify-1", "m1/verify-2"]
    assert cyclic("ABCD", 3) == [tuple("ABCD"), tuple("BCDA"), tuple("CDAB")]
    assert cyclic("AB", 3) == [tuple("AB"), tuple("BA")]


LONG = " It is said again in many other words that the finding holds for all of them."


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("It is clear from this. The final answer is maybe.", "names_another_choice"),
        ("It was so and so. " * 5, "repeats_itself"),
        ("Too few words.", "too_short"),
        ("", "too_short"),
        ("患者在六周之内明显好转而且没有任何不良反应发生。", "wrong_language"),
        (
            "The answer is yes. On the other hand the answer is no, as they say.",
            "names_another_choice",
        ),
        ("This one was cut within its first sentence of many words...", "cut_off"),
    ],
)
def test_faults_of_explanations(said: str, reason: str) -> None:
    def explain(at_fault: str) -> Callable[[str], str]:
        usual = Scripted().explain
        return lambda choice: said if choice == at_fault else usual(choice)

    found, rejects = made(Scripted(explain=explain("yes")))
    assert not found
    assert rejects["99000001"].reason == reason
    assert rejects["99000001"].detail["explanations"]["yes"][1] == reason
    # Of a wrong choice: shown to the verifier, not learned from.
    teacher = Scripted(explain=explain("no"))
    found, rejects = made(teacher)
    assert rejects["99000001/hypothesis-no"].reason == reason
    assert "99000001/hypothesis-no" not in found
    assert len(next(row for t, row in teacher.asked if t == CHECK)["rationales"]) == 3
    assert found["99000001/pair-rationale"].fields["rejected"]["answer"] == "maybe"


def test_a_cut_explanation_ends_with_its_last_whole_sentence() -> None:
    teacher = Scripted(
        explain=lambda c: f"Forty adults rested and all of them speak for {c}. And..."
    )
    found, _ = made(teacher)
    assert found["99000001/rationale"].fields["rationale"].endswith("speak for yes.")


def test_pairs_differ_in_length_by_a_quarter_at_most() -> None:
    def explain(choice: str) -> str:
        usual = f"The abstract states several plain findings that speak for {choice} here."
        return usual + LONG if choice == "no" else usual

    found, _ = made(Scripted(lambda o: "no" if o[0] == "no" else "yes", explain))
    assert found["99000001/pair-rationale"].fields["rejected"]["answer"] == "maybe"
    _, rejects = made(Scripted(explain=lambda c: explain("no") if c != "yes" else explain("yes")))
    assert rejects["99000001/pair-rationale"].reason == "length_mismatch"
    assert set(rejects["99000001/pair-rationale"].detail) == {"chosen", "rejected"}
    found, _ = made(Scripted(explain=explain), max_length_gap=0.9)
    assert found["99000001/pair-rationale"].fields["rejected"]["answer"] == "no"


def test_refusal_of_one_prompt_ends_one_item() -> None:
    teacher = Scripted(explain=lambda c: "REFUSE" if c == "B" else Scripted().explain(c))
    found, rejects = made(teacher, item(DRUGS), item())
    assert rejects["m1"].reason == "teacher_refused"
    assert "99000001/rationale" in found


# -- who may be asked of -----------------------------------------------------------------------

SPLIT = official_split()


@pytest.mark.parametrize(
    ("pmid", "fold", "reason"),
    [
        (SPLIT.test[0], -1, "test_item"), (SPLIT.test[7], 3, "test_item"),
        (SPLIT.folds[3][0], 3, "dev_item"), (SPLIT.folds[3][0], -1, "pqal_item"),
        (SPLIT.folds[3][0], 2, ""), ("99000001", 0, ""),
    ],
)  # fmt: skip
def test_items_of_test_and_dev_are_refused_by_their_pmid(pmid: str, fold: int, reason: str) -> None:
    plain = {**DRUGS, "id": "x"}
    forms: list[dict[str, Any]] = [
        {**ROW, "id": pmid}, {**plain, "pmid": pmid}, {**plain, "id": f"pubmedqa_{pmid}"},
        {**plain, "ids": {"pmid": pmid}},
        {"pubid": int(pmid), "question": "Q?", "context": {"contexts": ["c"]}, "long_answer": "",
         "final_decision": "no"},
        {"id": "e", "source": "pubmedqa", "kind": "task", "template": "pubmedqa.lm_eval",
         "fields": {"question": "Q?", "contexts": ["c"], "answer": "no"}, "ids": {"pmid": pmid}},
    ]  # fmt: skip
    for row in forms:
        found = solved("f:1", row, source="s", fold=fold)
        assert (found.reason if isinstance(found, Reject) else "") == reason, row


def test_the_number_of_an_own_question_is_no_pmid() -> None:
    own = {"question": "Which?", "choices": ["yes", "no"], "answer": "yes"}
    listed = official_split().folds[0][0]
    asked = {"question": "Q?", "contexts": ["c"], "answer": "yes"}
    for row, pmid in (
        ({"id": "1", **own}, None),
        ({"id": 1, **own}, None),
        ({"id": "1", "pmid": "77", **own}, "77"),
        ({"id": "pubmedqa_77", **own}, "77"),
        ({"id": listed, **own}, listed),  # of the labelled set, which a quarantine must see
        ({"id": "77", "template": "pubmedqa.lm_eval", "fields": asked}, "77"),
    ):
        item = solved("here", row, source="s", fold=1)
        assert isinstance(item, Solved)
        records = [one for one in build([item], Scripted(), VocSettings(), seed=0)
                   if isinstance(one, Example)]  # fmt: skip
        assert records
        assert {one.ids.get("pmid") for one in records} == {pmid}


def test_forms_of_rows() -> None:
    mcq = {
        "id": "q", "source": "medqa", "kind": "mcq", "template": "chat.mcq_label",
        "fields": {"question": "Q?", "options": {"A": "x", "B": "y"}, "answer_idx": "B"},
    }  # fmt: skip
    assert (item(mcq).answer, item(mcq).source) == ("y", "medqa")
    assert item(DRUGS, context="Text.").contexts == ("Text.",)
    assert item(DRUGS, answer="talin").answer == "talin"
    for changes, message in (
        ({"answer": 4}, "answer 4; allowed: 0 to 3"), ({"answer": "x"}, "answer 'x' is no choice"),
        ({"choices": ["a"], "answer": 0}, "choices; allowed: two or more"),
        ({"choices": ["a", "a"], "answer": 0}, "two choices are equal"),
        ({"answer": None}, "a choice or its place is expected"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            item(DRUGS, **changes)


# -- over all items ----------------------------------------------------------------------------


def examples(count: Mapping[str, int], hard: int = 0) -> list[dict[str, Any]]:
    """`count` consistent items an answer with two verify records each, then hard ones."""
    found = []
    names = [(f"{answer}{n}", answer) for answer, many in count.items() for n in range(many)]
    names += [(f"hard{n}", "yes") for n in range(hard)]
    for name, answer in names:
        ids = {"item": name, "bucket": "hard" if name.startswith("hard") else "consistent"}
        options = {"yes": "yes", "no": "no", "maybe": "maybe"}
        for what in ("rationale", "verify-0", "verify-1"):
            template = CHECK if "verify" in what else "cot.reason"
            fields = {"answer": answer, "options": options}
            found.append({"id": f"{name}/{what}", "template": template, "fields": fields,
                          "ids": ids, "lang": "en"})  # fmt: skip
    return found


@given(
    st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 3)
)
def test_verify_records_are_balanced_and_hard_items_a_tenth(
    yes: int, no: int, maybe: int, hard: int, seed: int
) -> None:
    rows = examples({"yes": yes, "no": no, "maybe": maybe}, hard)
    out = left_out(iter(rows), VocSettings(), seed=seed)
    assert set(out.values()) <= {"hard_cap", "class_balance"} <= set(REASONS)
    kept = [row for row in rows if row["id"] not in out]
    items = {row["ids"]["item"]: row["ids"]["bucket"] for row in kept}
    kept_hard = list(items.values()).count("hard")
    assert kept_hard <= 0.1 * len(items)
    assert kept_hard == min(hard, int((yes + no + maybe) / 9 + 1e-9))
    answers = Counter(row["fields"]["answer"] for row in kept if row["template"] == CHECK)
    assert len(set(answers.values())) <= 1
    assert not any(row["id"].endswith("rationale") and out.get(row["id"]) == "class_balance"
                   for row in rows)  # fmt: skip
    present = [n for n in (yes + kept_hard, no, maybe) if n]
    assert answers.total() == 2 * len(present) * min(present, default=0)
    assert left_out(iter(rows), VocSettings(balance=0, max_hard=0.99), seed=seed) == {} or hard


def test_different_items_stay_before_another_order_of_the_same() -> None:
    rows = examples({"yes": 4, "no": 2})
    out = left_out(iter(rows), VocSettings(), seed=0)
    assert sorted(out) == [f"yes{n}/verify-1" for n in range(4)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fold": 10}, "fold = 10; allowed: -1 .none. to 9"),
        ({"verdict": "score"}, "unknown verdict 'score'.*did you mean 'scored'"),
        ({"max_hard": 1.0}, "max_hard = 1.0"), ({"orders": 0}, "orders = 0; allowed: 1 or more"),
        ({"min_agreement": 2.0}, "min_agreement"), ({"balance": 2}, "balance = 2"),
    ],
)  # fmt: skip
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        VocSettings(**settings)
