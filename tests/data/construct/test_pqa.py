"""Abstracts -> PubMedQA-shaped examples; label balance."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import starmap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medexpert.data.construct.balance import Tally, balance
from medexpert.data.construct.pqa import build, build_one
from medexpert.data.readers.abstracts import Abstract
from medexpert.data.readers.rows import Change, Drop, Fault
from medexpert.prompt.template import ChatFormat, render
from medexpert.records import Example, UserError

RESULTS = (
    "Mean pain fell from six to two points with the tablet and from six to three points without it "
    "over four weeks of follow-up in both wards."
)
TRIAL = Abstract(
    id="a1",
    ids={"pmid": "7", "pmcid": "PMC7"},
    title="Velotine reduces gastric pain in older adults: a randomised trial",
    sections=(
        ("Background", "Gastric pain is common in older adults."),
        ("Methods:", "Forty adults took velotine or nothing."),
        ("Results", RESULTS),
        ("Conclusions", "Velotine reduced gastric pain in older adults."),
        ("Trial registration", "NCT00000001"),
    ),
    licence="CC-BY",
    lang="en",
    source="invented",
)


def concluded(text: str, **changes: object) -> Abstract:
    sections = (*TRIAL.sections[:3], ("Conclusions", text))
    return replace(TRIAL, sections=sections, **changes)  # type: ignore[arg-type]


def only(items: Iterable[object]) -> object:
    found = [item for item in items if not isinstance(item, Change)]
    assert len(found) == 1
    return found[0]


def test_an_abstract_becomes_an_example_with_the_conclusion_withheld() -> None:
    change, example = build_one(TRIAL)
    assert change == Change("a1", "registration_section_left_out")
    assert isinstance(example, Example)
    assert example.fields["question"] == "Does velotine reduce gastric pain in older adults?"
    assert example.fields["answer"] == "yes"
    assert example.fields["long_answer"] == "Velotine reduced gastric pain in older adults."
    assert example.fields["contexts"] == [
        "Gastric pain is common in older adults.",
        "Forty adults took velotine or nothing.",
        RESULTS,
    ]
    assert example.ids == {
        "pmid": "7",
        "pmcid": "PMC7",
        "question_from": "statement",
        "label_from": "title+conclusion",
    }
    assert (example.licence, example.source, example.kind) == ("CC-BY", "invented", "task")


def test_the_template_takes_the_fields_and_hides_the_conclusion() -> None:
    example = only(build_one(TRIAL))
    assert isinstance(example, Example)
    text = "".join(
        s.text for s in render(example.template, example.fields, chat=ChatFormat("", "", ""))
    )
    assert "Velotine reduced" not in text
    assert text.endswith("Answer: yes")


@pytest.mark.parametrize(
    ("title", "conclusion", "answer", "found"),
    [
        (TRIAL.title, "Nurses were content with all of it.", "yes", "title"),
        (
            "Velotine does not reduce gastric pain",
            "Velotine did not reduce gastric pain at all.",
            "no",
            "title+conclusion",
        ),
        (
            "Does velotine reduce gastric pain?",
            "Velotine did not reduce gastric pain at all.",
            "no",
            "conclusion",
        ),
        (
            "Does velotine reduce gastric pain?",
            "Velotine may reduce gastric pain in some.",
            "yes",
            "weak",
        ),
        (
            "Does velotine reduce gastric pain?",
            "Velotine reduced gastric pain only in selected patients.",
            "maybe",
            "doubt",
        ),
        (
            "Velotine might reduce gastric pain",
            "Velotine might reduce gastric pain one day.",
            "maybe",
            "hedge",
        ),
    ],
)
def test_labels_and_where_they_come_from(
    title: str, conclusion: str, answer: str, found: str
) -> None:
    example = only(build_one(concluded(conclusion, title=title)))
    assert isinstance(example, Example), example
    assert (example.fields["answer"], example.ids["label_from"]) == (answer, found)


@pytest.mark.parametrize(
    ("abstract", "reason"),
    [
        (concluded("Velotine did not reduce gastric pain."), "title_and_conclusion_disagree"),
        (replace(TRIAL, lang="de"), "not_english"),
        (replace(TRIAL, title="Effects of velotine on pain"), "title_noun_phrase"),
        (replace(TRIAL, title=""), "objective_no_whether"),
        (replace(TRIAL, sections=TRIAL.sections[:3]), "no_conclusion_section"),
        (replace(TRIAL, sections=TRIAL.sections[3:]), "no_context"),
        (
            replace(TRIAL, sections=(*TRIAL.sections[:2], TRIAL.sections[3])),
            "no_results_section",
        ),
        (concluded("It works well."), "conclusion_too_short"),
        (concluded(RESULTS), "conclusion_in_context"),
        (
            replace(TRIAL, sections=(("Results and conclusions", RESULTS),)),
            "results_and_conclusion_in_one_section",
        ),
        (
            replace(TRIAL, sections=(("Results", "It fell."), TRIAL.sections[3])),
            "context_too_short",
        ),
        (
            concluded("Nurses were content with it.", title="Does velotine reduce pain?"),
            "conclusion_off_topic",
        ),
    ],
)
def test_what_cannot_be_an_item_is_dropped_with_a_reason(abstract: Abstract, reason: str) -> None:
    assert only(build_one(abstract)) == Drop("a1", reason)


def test_objectives_serve_where_titles_ask_nothing() -> None:
    sections = (
        ("Objective", "To test whether velotine reduces gastric pain."),
        *TRIAL.sections[1:],
    )
    silent = replace(TRIAL, title="Velotine and pain", sections=sections)
    assert only(build_one(silent)) == Drop("a1", "title_noun_phrase")
    for example in (
        only(build_one(silent, objectives="no_question")),
        only(build_one(replace(silent, title=""))),
    ):
        assert isinstance(example, Example)
        assert example.fields["question"] == "Does velotine reduce gastric pain?"
        assert example.ids["question_from"] == "objective"


def test_maybe_candidates_can_be_left_out_and_the_readers_items_pass_through() -> None:
    doubtful = concluded("Velotine reduced gastric pain only in selected patients.")
    items = [Drop("x", "r"), Fault("f:1", "bad"), Change("y", "c"), doubtful]
    assert list(build(items, maybe=False)) == [*items[:3], Drop("a1", "maybe_candidate")]


# -- balance -----------------------------------------------------------------------------------


def example(number: int, answer: str) -> Example:
    return Example(f"e{number}", "s", "task", "pubmedqa.lm_eval", {"answer": answer})


def kept(items: Iterable[Example | Drop]) -> set[str]:
    return {item.id for item in items if isinstance(item, Example)}


@given(
    st.lists(st.sampled_from(["yes", "yes", "yes", "no", "maybe"]), min_size=1, max_size=60),
    st.sampled_from([0.0, 1.0, 1.5, 2.0]),
    st.integers(0, 3),
)
@settings(max_examples=100, deadline=None)
def test_balance_is_exact_and_the_same_in_any_order(
    labels: list[str], ratio: float, seed: int
) -> None:
    examples = list(starmap(example, enumerate(labels)))
    counts = Counter(labels)
    if ratio and not min(counts["yes"], counts["no"]):
        with pytest.raises(UserError, match="cannot be balanced"):
            list(balance(examples, ratio=ratio, seed=seed))
        return
    out = list(balance(examples, ratio=ratio, seed=seed))
    assert len(out) == len(examples)
    limit = int(ratio * min(counts["yes"], counts["no"])) if ratio else len(labels)
    left = Counter(str(e.fields["answer"]) for e in out if isinstance(e, Example))
    assert left == Counter({k: min(n, limit) for k, n in counts.items()})
    shuffled = random.Random(1).sample(examples, len(examples))
    assert kept(balance(shuffled, ratio=ratio, seed=seed)) == kept(out)


def test_tallies_of_shards_add_up() -> None:
    examples = [example(n, "yes" if n % 4 else "no") for n in range(100)]
    whole, first, second = Tally(5), Tally(5), Tally(5)
    for e in examples:
        whole.add(e)
        (first if int(e.id[1:]) % 3 else second).add(e)
    second.merge(first)
    one, two = whole.balance(2.0), second.balance(2.0)
    assert one == two
    assert sum(map(one.keeps, examples)) == 75
    with pytest.raises(ValueError, match="do not add up"):
        second.merge(Tally(6))


def test_a_ratio_below_one_is_refused() -> None:
    with pytest.raises(UserError, match=r"label ratio 0\.5.*allowed: 0 \(off\) or 1 and more"):
        list(balance([example(1, "yes"), example(2, "no")], ratio=0.5, seed=1))


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("Discussion", "In conclusion, velotine is worth its price in older adults."),
        ("Comment", "Few were lost. Velotine reduced gastric pain in older adults. It was cheap."),
        ("Results", RESULTS + " Conclusions: velotine should be taken by older adults."),
    ],
)
def test_a_conclusion_told_elsewhere_too(label: str, text: str) -> None:
    abstract = replace(
        concluded("Velotine reduced gastric pain in older adults. More trials are welcome."),
        sections=(*TRIAL.sections[:4], (label, text)),
    )
    assert only(build_one(abstract)) == Drop("a1", "conclusion_in_context")
