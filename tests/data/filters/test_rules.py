"""Each filter: what it keeps, what it drops, and with which reason. All text is invented."""

from __future__ import annotations

import re
import time

import pytest

from medexpert.data import filters
from medexpert.data.filters import DEFAULT, Filtered, Settings
from medexpert.records import Document, Example

PROSE = (
    "Twelve patients of one ward were seen on the third day and again a week later. Pain had gone "
    "in most of them; two asked for more aspirin, and one, who had not slept, was sent home with "
    "a diary. No wound opened. The nurses thought that the shorter stay suited everyone, although "
    "families had to learn how a dressing is changed before they could take over at night."
)
LONG = " ".join(
    f"Person {i} of the ward took {i * 13 % 97} mg of drug {chr(97 + i % 26)}{i} and slept for "
    f"{i % 9} hours, which the nurse of room {i * 3 % 41} wrote down."
    for i in range(40)
)
CHINESE = (
    "发热三天，咳嗽，无胸痛，既往体健，无药物过敏史。查体：神志清，双肺呼吸音粗，可闻及湿啰音。"
)
CLASSICAL = "夫病之始生也，极微极精，必先入结于皮肤。今良工皆称曰病成，名曰逆，则针石不能治也。"
DOSES = "\n".join(f"Drug {c}: {n} mg twice a day" for n, c in enumerate("ABCDEFGHIJKL", 5))
MONOGRAPH = "某药片\n剂型:片剂：10mg。\n适应证:用于发热，头痛。\n用法用量:口服，一次1片，一日3次。"
GERMAN = (
    "Die Patienten wurden nach der Behandlung entlassen und kamen nach einer Woche wieder, damit "
    "die Wunde nochmals untersucht werden konnte; dabei zeigte sich eine deutliche Besserung. "
)
FRENCH = (
    "Les patients ont été suivis pendant six mois après le traitement, et la douleur était moins "
    "forte chez ceux qui avaient reçu le médicament que chez les autres malades de la salle. "
)


def run(text: str, settings: Settings = DEFAULT, min_chars: int = 20) -> Filtered:
    return filters.filtered(Document("a", text, "s"), settings, min_chars=min_chars)


@pytest.mark.parametrize(
    "text",
    [
        PROSE,
        LONG,
        CHINESE,
        CLASSICAL,
        DOSES,
        MONOGRAPH,
        "Größe, naïve, 5 µg, ≥ 3 °C: ordinary accents and signs.",
        "患者 was given aspirin 100 mg qd 后好转, CT 示 no bleeding, 建议继续用药。" * 2,
        "Background\nThe stay was measured.\nMethods\nBy lot.\nResults\nShorter by two days.",
    ],
)
def test_good_text_is_kept_unchanged(text: str) -> None:
    assert run(text) == Filtered(Document("a", text, "s"), (), None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" \n ", "empty"),
        ("Too short.", "too_short"),
        ("value \x04 and \x05 and \x06 are lost control bytes", "control_characters"),
        ("lak\ufffds\ufffdsz\ufffdt\ufffds is unreadable now", "mojibake"),
        ("© 2020 A Publisher Ltd. All rights reserved.", "boilerplate"),
        ("<q1>a</q1><zz x='1'>" * 9 + " some words that stand there by chance", "markup"),
        ("12.5 (3.4) ab cd ef; 7.5 [1.2] gh ij kl!!! 8,5 ??? ... ;;; ... ---", "few_letters"),
        ("~~~ ^^^ === +++ ~~~ word word word word word word ~~~ === +++", "many_symbols"),
        ("1990 20 30 1991 40 20 1992 50 60 and some words by the side", "many_digits"),
        ("Onlythreelong wordsstanding heretoday", "few_words"),
        ("a b c d e f g h i j k l m n o p q r s t u v w x y z", "word_length"),
        (" ".join(f"tumor{i} marker{i} antigen{i}" for i in range(30)) + ".", "no_stop_words"),
        (re.sub(r"[.;]", "", f"{PROSE} {LONG[:300]}"), "no_sentence"),
        ("\n".join(f"Part {i} of the story which goes on..." for i in range(12)), "ellipsis_lines"),
        ("\n".join(f"Chapter {i} of the book ..... {i * 9}" for i in range(1, 14)), "contents"),
        ("\n".join(f"aspirin {w}, {i}, {i + 7}" for i, w in enumerate(PROSE.split())), "contents"),
        ("\n".join(f"- item {i} here" for i in range(12)), "bullet_lines"),
        (GERMAN * 2, "language_de"),
        (FRENCH * 2, "language_fr"),
        (
            "".join(f"線量{i}の患者はとても元気であるといわれています。" for i in range(12)),
            "language_ja",
        ),
        (LONG[:600] + "\n" + "\n".join(["A menu line of the page"] * 60), "repeated_lines"),
        ("It was the same sentence that we read before. " * 30, "repeated_runs"),
        ("同一句话在这里又出现了一次而且没有停止过。" * 20, "repeated_runs"),
    ],
)
def test_each_filter_drops_with_its_reason(text: str, expected: str) -> None:
    found = run(text)
    assert found.reason == expected
    known = {reason.partition("_")[0] if "language" in reason else reason for reason in [expected]}
    assert known <= set(filters.REASONS)


def test_a_reason_can_be_switched_off() -> None:
    assert run(GERMAN + FRENCH, Settings(off=("language", "no_stop_words"))).reason is None
    assert run("Too short.", Settings(off=("too_short", "few_words"))).reason is None


def test_other_languages_for_one_source() -> None:
    document = Document("a", FRENCH + GERMAN, "s")
    assert filters.filtered(document, languages=("de", "fr")).reason is None
    assert filters.filtered(Document("a", LONG, "s"), languages=("fr",)).reason == "language_en"


def test_a_chinese_character_counts_as_three_for_the_least_length() -> None:
    assert run(MONOGRAPH, min_chars=80).reason is None
    assert run("用于发热。", min_chars=80).reason == "too_short"


def test_a_bilingual_abstract_is_kept() -> None:
    french = "".join(FRENCH.replace("six", str(i)).replace("salle", f"salle {i}") for i in range(4))
    text = f"Abstract\n{LONG[:650]}\nRésumé\n{french}"
    assert run(text, Settings(off=("repeated_runs",))).reason is None
    assert run(french, Settings(off=("repeated_runs",))).reason == "language_fr"


def example(kind: str = "qa", **fields: object) -> Example:
    return Example("a", "s", kind, "chat.qa", fields)


def test_examples_are_judged_gently() -> None:
    assert filters.example_reason(example(question="q", answer="No.")) is None
    assert filters.example_reason(example(question="q", answer="\ufffd\ufffd\ufffd")) == "mojibake"
    again = "ask this again and again " * 100
    assert filters.example_reason(example(question="q", answer=again)) == "repeated_runs"
    twice = f"{PROSE} {PROSE}"
    assert filters.example_reason(example(question=twice, answer="A table:\n" + DOSES)) is None


def test_an_example_keeps_markup_that_it_is_about() -> None:
    made = example("conversation", messages=[{"role": "user", "content": "Explain <table><tr>."}])
    assert filters.filtered(made) == Filtered(made, (), None)


def test_an_example_is_repaired_in_every_string() -> None:
    made = example(question="It&apos;s H<sub>2</sub>O?", answer="Yes.<br>\nSee\x00", options={})
    found = filters.filtered(made)
    assert found.record == example(question="It's H2O?", answer="Yes.\n\nSee", options={})
    assert set(found.changes) == {"normalised", "markup_removed"}


def test_boilerplate_leaves_answers_but_never_all_of_one() -> None:
    made = example(question="Where?", answer="At the clinic.\nhttps://example.org/a")
    assert filters.filtered(made).record == example(question="Where?", answer="At the clinic.")
    only = example(question="Which page?", answer="https://example.org/a")
    assert filters.filtered(only) == Filtered(only, (), None)


def test_title_is_repaired_too() -> None:
    document = Document("a", PROSE, "s", title="Of <i>E. coli</i>")
    found = filters.filtered(document)
    assert isinstance(found.record, Document)
    assert found.record.title == "Of E. coli"
    assert found.changes == ("markup_removed",)


PIECES = (
    "<script>,<!--,<a b,<a href=',<,\\documentclass,\\cite[,\\textbf{,[[,[[a|,{{,{{a|,[x](,```, ,-,"
    " - ,.,=,== ,',&amp,&amp;,amp;,&,é,Ã,中,中 \n,a\n,\n,0,References\n,Funding\n,© ,Home > ,www.,"
    "cookies "
)


@pytest.mark.parametrize("piece", PIECES.split(","))
def test_no_text_takes_long(piece: str) -> None:
    text = (piece * 60_000)[:100_000]
    closed = ("b>}]" * 25_000)[:100_000]
    started = time.perf_counter()
    for whole in (text, f"A {text} <link> a \n", f"<table>[[File: '''{text}</p>\n", text + closed):
        run(whole)
    assert time.perf_counter() - started < 20  # linear: about a second on an idle machine


def test_markup_nested_without_end_is_left_as_it_is() -> None:
    deep = "<" * 30 + "b>" * 30
    assert filters.cleaned_with_changes(deep) == (deep, ())
    assert filters.cleaned_with_changes("<<b>b>bold") == ("bold", ("markup_removed",))


@pytest.mark.parametrize(
    ("kind", "fields", "reason"),
    [
        ("task", {"question": "Does it?", "contexts": ["It does."], "answer": ""}, "no_answer"),
        ("task", {"question": "Does it?", "contexts": ["It does."]}, "no_answer"),
        ("task", {"question": "Does it?", "contexts": ["It does."], "answer": "no"}, None),
        ("qa", {"question": " ", "answer": "Rest."}, "no_question"),
        ("qa", {"question": "What helps?", "answer": "<b></b>"}, "no_answer"),
        ("reasoning", {"question": "Why?", "rationale": "", "answer": "So."}, "no_answer"),
        ("mcq", {"question": "Which?", "options": {"A": "x"}, "answer_idx": ""}, "no_answer"),
        ("conversation", {"messages": []}, None),
    ],
)
def test_an_example_without_question_or_answer_teaches_nothing(
    kind: str, fields: dict[str, object], reason: str | None
) -> None:
    off = DEFAULT.model_copy(update={"off": filters.REASONS})
    found = [filters.filtered(Example("e", "s", kind, "t", fields), s) for s in (DEFAULT, off)]
    assert [one.reason for one in found] == [reason, reason]
