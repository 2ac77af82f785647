"""Planted leaks are found, boilerplate is not."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medexpert.data.quarantine import KINDS, Hit, Quarantine
from medexpert.records import Document, Example

Text = Callable[..., str]
FILLER = (
    "The harbour master counted {} crates of lemons and wrote the figure beside the tide. "
    "Nobody asked why the ledger had a {} drawn in its margin. "
)


def doc(text: str, **more: str) -> Document:
    return Document("d", text, "s", **more)


def only(found: list[Hit]) -> Hit:
    assert len(found) == 1, found
    return found[0]


def long_text(inside: str, seed: int = 0) -> str:
    """`inside` in the middle of a document of some 20,000 words."""
    random_ = random.Random(seed)
    parts = [FILLER.format(random_.random(), random_.random()) for _ in range(700)]
    return "".join([*parts[:350], inside + " ", *parts[350:]])


@pytest.mark.parametrize(
    ("item", "role"),
    [("lighthouse", "question"), ("lighthouse", "context"), ("lighthouse", "answer"),
     ("beekeeper", "question"), ("zh-kiln", "question"), ("zh-kiln", "answer"),
     ("exam-3", "question")],
)  # fmt: skip
@pytest.mark.parametrize("embed", [lambda text: text, long_text], ids=["alone", "in a long text"])
def test_a_text_word_for_word(
    invented: Quarantine, text_of: Text, item: str, role: str, embed: Callable[[str], str]
) -> None:
    hit = only(invented.hits(doc(embed(text_of(item, role)))))
    assert (hit.benchmark, hit.item, hit.role, hit.score) == ("invented", item, role, 1.0)
    assert hit.kind == "substring"
    assert invented.hit(doc(embed(text_of(item, role)))) == hit


@pytest.mark.parametrize("item", ["lighthouse", "zh-kiln", "exam-5"])
@pytest.mark.parametrize("embed", [lambda text: text, long_text], ids=["alone", "in a long text"])
def test_one_word_in_twelve_changed(
    invented: Quarantine, text_of: Text, item: str, embed: Callable[[str], str]
) -> None:
    role = {"lighthouse": "context", "zh-kiln": "answer"}.get(item, "question")
    text = text_of(item, role)
    words = list(text) if item == "zh-kiln" else text.split()
    for at in range(6, len(words), 12):
        words[at] = "某" if item == "zh-kiln" else "quux"
    changed = ("" if item == "zh-kiln" else " ").join(words)
    hit = only(invented.hits(doc(embed(changed))))
    assert (hit.item, hit.kind) == (item, "near")
    assert 0.5 <= hit.score < 0.8


def test_reformatted(invented: Quarantine, text_of: Text) -> None:
    text = text_of("lighthouse", "context")
    for changed in (
        text.upper(), text.replace(". ", ".\n\n* "), text.replace(" ", "  "), f"**{text}**",
        text.translate({n: n + 0xFEE0 for n in range(0x21, 0x7F)}),
    ):  # fmt: skip
        assert only(invented.hits(doc(changed))).item == "lighthouse"


def test_traditional_script_and_full_width(invented: Quarantine, text_of: Text) -> None:
    traditional = "某瓷窯工人連續值夜班三週後出現指尖麻木並伴有金屬味覺,首先應當檢查的項目是"
    assert only(invented.hits(doc(traditional))).item == "zh-kiln"
    full = text_of("lighthouse").translate({n: n + 0xFEE0 for n in range(0x21, 0x7F)})
    full = full.replace(" ", "\u3000")
    assert only(invented.hits(doc(full))).item == "lighthouse"


def test_question_without_its_options(invented: Quarantine, text_of: Text) -> None:
    stem = text_of("beekeeper").split("\n")[0]
    assert only(invented.hits(doc(f"Q: {stem} A: rest."))).kind == "substring"


def test_a_run_of_thirteen_words(invented: Quarantine, text_of: Text) -> None:
    words = text_of("lighthouse", "context").split()
    hit = only(invented.hits(doc("He said: " + " ".join(words[9:23]) + ", they claim.")))
    assert (hit.kind, hit.role) == ("13gram", "context")
    assert 0 < hit.score < 0.1
    assert not invented.hits(doc("He said: " + " ".join(words[9:20]) + ", they claim."))


def test_by_title(invented: Quarantine, text_of: Text) -> None:
    assert only(invented.hits(doc("Nothing.", title=text_of("lighthouse")))).role == "question"


def test_by_id(invented: Quarantine) -> None:
    hit = invented.hit(doc("Nothing.", ids={"pmid": "PMID: 99000001"}))
    assert hit == Hit("invented", "lighthouse", "id", 1.0)
    assert invented.hit(Document("HIVE-00017", "Nothing.", "s")) == Hit(
        "invented", "beekeeper", "id", 1.0
    )
    assert invented.hit(doc("Nothing.", ids={"pmid": "99000002"})) is None


def mcq(question: str, *options: str) -> Example:
    fields = {"question": question, "options": dict(zip("ABCDEF", options, strict=False))}
    return Example("e", "s", "mcq", "chat.mcq_label", fields)


def test_exact_with_options_in_another_order(invented: Quarantine, text_of: Text) -> None:
    stem, *options = text_of("beekeeper").split("\n")
    hit = invented.hit(mcq(stem.upper(), *reversed(options)))
    assert hit == Hit("invented", "beekeeper", "exact", 1.0, "question")
    assert invented.hit(mcq(stem, *options[:3])).kind == "substring"  # type: ignore[union-attr]


def test_a_short_question_as_a_whole_field(indexed: Callable[..., Quarantine]) -> None:
    from types import SimpleNamespace

    found = indexed(
        [SimpleNamespace(id="1", texts={"question": "Does humming postpone baldness?"}, ids={})]
    )
    whole = Hit("invented", "1", "exact", 1.0, "question")
    assert found.hit(doc("Text.", title="Does humming postpone baldness?")) == whole
    qa = Example(
        "e", "s", "qa", "chat.qa", {"question": "does HUMMING postpone baldness", "answer": "."}
    )
    assert found.hit(qa) == whole
    assert found.hit(doc("He asked: Does humming postpone baldness?")) is None


def test_generic_question_needs_its_options(indexed: Callable[..., Quarantine]) -> None:
    from dataclasses import make_dataclass

    item = make_dataclass("item", ["id", "texts", "ids"])
    stem = "Which of the following statements about {} is false?"
    words = ["amber", "basil", "cedar", "dill", "elm", "fig", "gorse", "hazel", "iris"]
    many = [
        item(str(n), {"question": stem.format(word) + f"\n{word} tastes of tin {n}\nIt hums"}, {})
        for n, word in enumerate(words)
    ]
    found = indexed(many)
    assert found.hit(mcq(stem.format("basil"), "It sings", "It leaps")) is None
    assert found.hit(mcq(stem.format("basil"), "It hums", "basil tastes of tin 1")) == Hit(
        "invented", "1", "exact", 1.0, "question"
    )


def test_boilerplate_is_no_hit_and_is_counted(invented: Quarantine) -> None:
    invented.guarded.clear()
    text = (
        "A 51-year-old roofer comes to the clinic. His temperature is 36.4 C (101 F), pulse is "
        "74/min, and blood pressure is 114/74 mm Hg. He cannot whistle. "
        "Which of the following is the most likely diagnosis in this patient?"
    )
    assert invented.hits(doc(text)) == []
    assert invented.guarded == {"invented": 1}


def test_short_texts_are_left_out(invented: Quarantine) -> None:
    facts = invented.facts["invented"]
    assert facts["texts_too_short"] == 1
    assert invented.hit(doc("Is chalk a food? Is chalk a food?")) is None


def test_nothing_quarantined(indexed: Callable[..., Quarantine]) -> None:
    empty = indexed([])
    assert empty.hit(doc("Some text of more than eight words is here to be seen.")) is None


@given(st.text(), st.text())
@settings(max_examples=100)
def test_any_text(invented: Quarantine, text: str, title: str) -> None:
    for hit in invented.hits(doc(text, title=title)):
        assert hit.kind in KINDS


@given(st.integers(0, 40), st.integers(13, 45), st.text(max_size=30))
@settings(max_examples=60)
def test_any_long_enough_piece_is_found(
    invented: Quarantine, text_of: Text, start: int, size: int, around: str
) -> None:
    words = text_of("lighthouse", "context").split()
    piece = words[start : start + size]
    if len(piece) < 13:
        return
    found = invented.hits(doc(f"{around}. {' '.join(piece)} .{around}"))
    assert [hit.item for hit in found] == ["lighthouse"]


ASKED = "Does tallow soothe geese?"  # too short to be found inside another text


def qa(**fields: object) -> Example:
    return Example("e", "s", "qa", "chat.qa", {"answer": "Rarely.", **fields})


@pytest.mark.parametrize(
    "record",
    [
        doc("Feathers.", title=ASKED),
        qa(question=ASKED),
        qa(question=f"Answer yes, no or maybe.\n{ASKED}"),
        qa(question=ASKED, options={"A": "yes", "B": "no", "C": "maybe"}),
        qa(messages=[{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Yes?"},
                     {"role": "user", "content": ASKED.upper()}]),
    ],
    ids=["title", "question", "line", "mcq", "turn"],
)  # fmt: skip
def test_a_short_bare_question_wherever_it_is_asked(
    indexed: Callable[..., Quarantine], made: Callable[..., object], record: Document | Example
) -> None:
    quarantine = indexed([made("geese", {"question": ASKED})], "geese")
    assert only(quarantine.hits(record)).kind == "exact"
    assert quarantine.hit(record) is not None


def test_an_item_with_options_is_not_its_stem_alone(
    indexed: Callable[..., Quarantine], made: Callable[..., object]
) -> None:
    quarantine = indexed([made("geese", {"question": f"{ASKED}\nOften\nSeldom"})], "geese")
    assert not quarantine.hits(qa(question=ASKED, options={"A": "With salt", "B": "At dusk"}))
    assert quarantine.hits(qa(question=ASKED, options={"A": "Seldom", "B": "Often"}))
