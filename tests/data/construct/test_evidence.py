"""Evidence Inference rows -> PubMedQA-shaped examples."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from medexpert.data.construct.evidence import MATCHING, build, build_one, question
from medexpert.data.readers.evidence_rows import EvidenceRow
from medexpert.data.readers.rows import Change, Drop, Fault
from medexpert.records import Example

ROW = EvidenceRow(
    id="r1",
    pmcid="PMC7",
    pmid="7",
    intervention="Velotine 5 mg ",
    comparator="placebo.",
    outcome="Gastric pain score",
    label="significantly increased",
    abstract=(
        ("Methods", "Adults took velotine or placebo."),
        ("Results", "The gastric pain score rose more with velotine than with placebo."),
        ("Conclusions", "Velotine raises pain."),
        ("Funding", "None."),
    ),
    licence="CC-BY",
    split="train",
)


def example_of(row: EvidenceRow, seed: int = 1) -> Example:
    found = [item for item in build_one(row, seed=seed) if isinstance(item, Example)]
    assert len(found) == 1
    return found[0]


def test_a_row_becomes_an_example() -> None:
    seed = next(n for n in range(50) if example_of(ROW, n).fields["answer"] == "yes")
    change, example = build_one(ROW, seed=seed)
    assert change == Change("r1", "registration_section_left_out")
    assert isinstance(example, Example)
    assert example.fields["question"] == (
        "Does Velotine 5 mg, compared with placebo, significantly increase gastric pain score?"
    ) or example.fields["question"].startswith("Does velotine 5 mg, compared with placebo,")
    assert example.fields["contexts"] == [text for _, text in ROW.abstract[:2]]
    assert example.fields["long_answer"] == "Velotine raises pain."
    assert example.ids == {
        "pmid": "7",
        "pmcid": "PMC7",
        "question_from": "evidence",
        "label_from": "annotation",
    }


@pytest.mark.parametrize(
    ("label", "asked"),
    [
        ("significantly increased", {"increase": "yes", "reduce": "no"}),
        ("significantly decreased", {"increase": "no", "reduce": "yes"}),
        ("no significant difference", {"increase": "no", "reduce": "no"}),
    ],
)
def test_the_answer_follows_from_label_and_direction(label: str, asked: dict[str, str]) -> None:
    seen = {}
    for seed in range(60):
        fields = example_of(replace(ROW, label=label), seed).fields
        direction = "increase" if "significantly increase" in fields["question"] else "reduce"
        seen[direction] = fields["answer"]
    assert seen == asked


def test_directions_are_drawn_by_id_and_seed_at_the_stated_odds() -> None:
    rows = [replace(ROW, id=f"r{n}") for n in range(2000)]
    answers = Counter(example_of(row).fields["answer"] for row in rows)
    assert answers["yes"] / 2000 == pytest.approx(MATCHING, abs=0.03)
    assert [example_of(r) for r in rows[:20]] == [example_of(r) for r in rows[:20]]
    other = Counter(example_of(row, 2) == example_of(row, 1) for row in rows)
    assert other[False] > 100


def test_contradicting_annotators_make_a_maybe_candidate() -> None:
    row = replace(ROW, agree=False)
    example = example_of(row)
    assert (example.fields["answer"], example.ids["label_from"]) == ("maybe", "disagreement")
    assert list(build_one(row, seed=1, maybe=False)) == [Drop("r1", "maybe_candidate")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (replace(ROW, abstract=()), "no_abstract"),
        (replace(ROW, abstract=ROW.abstract[2:3]), "no_abstract"),
        (replace(ROW, abstract=ROW.abstract[:2]), "no_conclusion_section"),
        (replace(ROW, abstract=(("", "Pain rose. We conclude so."),)), "no_conclusion_section"),
        (replace(ROW, label=""), "no_label"),
        (replace(ROW, outcome="number of new teeth"), "answer_not_in_abstract"),
        (replace(ROW, evidence=("a sentence of the full text only",)), "answer_not_in_abstract"),
        (replace(ROW, intervention=" "), "empty_prompt"),
        (replace(ROW, intervention="word " * 31), "long_prompt"),
        (replace(ROW, intervention="patients who were given velotine"), "no_noun_phrase"),
        (replace(ROW, comparator="without velotine"), "no_noun_phrase"),
        (replace(ROW, outcome="reduces pain"), "no_noun_phrase"),
        (
            replace(ROW, abstract=(("Results and conclusions", "Gastric pain score rose."),)),
            "results_and_conclusion_in_one_section",
        ),
    ],
)
def test_what_cannot_be_asked_is_dropped_with_a_reason(row: EvidenceRow, reason: str) -> None:
    assert list(build_one(row, seed=1)) == [Drop("r1", reason)]


def test_a_quotation_in_the_abstract_is_enough() -> None:
    row = replace(ROW, outcome="soreness", evidence=("The gastric pain score rose more with",))
    assert example_of(row)


def test_the_wording_fits_number_entities_and_case() -> None:
    asked = question("Warm baths", "Group A: cold &amp;amp; dry air", "The sleep", "reduce", "warm")
    assert asked == ("Do warm baths, compared with cold & dry air, significantly reduce the sleep?")


def test_other_splits_are_dropped_and_the_readers_items_pass_through() -> None:
    items = [Drop("x", "r"), Fault("f:1", "bad"), replace(ROW, split="test")]
    assert list(build(items, seed=1, splits=("train",))) == [
        *items[:2],
        Drop("r1", "other_split"),
    ]
