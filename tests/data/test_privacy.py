"""Identifiers found, replaced and counted; every person, number and place here is invented."""

from __future__ import annotations

import logging
import random
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medexpert.data.privacy import KINDS, Redactor
from medexpert.data.privacy.rules import chinese_id, luhn, numeric_date, vehicle_number
from medexpert.records import Document, Example, UserError

LETTER = (
    "Patient: John A. Smith, MRN: 00123456, DOB 03/14/1950. Dr. Emily Carter saw Mr. Smith on "
    "14 March 2019 at St. Mary's Hospital, Ward 7B. Call (617) 555-0123 or jane.doe@example.com. "
    "Smith is a 92-year-old man of 12 Oak Street, Springfield, IL 62704. "
    "SSN 219-09-9999. NHS number 943 476 5919."
)
RECORD = (
    "姓名：张小明  性别：男  住院号：ZY20193345 身份证号：11010519491231002X，"
    "电话：13812345678。2019年3月14日于北京协和医院就诊，王丽主任查房。"
    "家住浙江省杭州市西湖区文三路123号5幢302室。张小明诉胸痛。"
)
CLEAN = [
    (
        "Patients received 12-15 mg daily (p = 0.03; 95% CI 1.2-3.4) for 2-3 days; "
        "BP 120/80 mmHg, pH 7.40."
    ),
    "Ages ranged from 18 to 95 years; those aged 90 years or older (> 90 years old) were excluded.",
    "See N Engl J Med 1999;341:1565-1570, doi 10.1000/182, ISRCTN74459797 and NCT00335790.",
    "In May 20 patients came; by March 12 patients had left. Ratio 1:2, 10/12 cases, 3/4 of them.",
    (
        "The laryngoscopy group: 0.328 mm. Hospital Anxiety and Depression Scale. "
        "Plastic Surgery. Graves' disease."
    ),
    (
        "高血压患者应在医生指导下服用，每日2次，每次5mg，连用7～10天；"
        "血压120/80mmHg，与抗生素合用可提高对某些细菌的疗效。"
    ),
    "90岁以上老人慎用。住院3天，转上级医院。取决于医生的建议。",
]


@pytest.fixture(scope="module")
def redactor() -> Redactor:
    return Redactor.open("redact")


def test_an_english_letter(redactor: Redactor) -> None:
    text, counts = redactor.apply(LETTER)
    assert text == (
        "Patient: [NAME], MRN: [RECORD], DOB [DATE]. Dr. [NAME] saw Mr. [NAME] on [DATE] "
        "at [HOSPITAL], [WARD]. Call [PHONE] or [EMAIL]. [NAME] is a [AGE]-year-old man "
        "of [ADDRESS]. SSN [ID]. NHS number [ID]."
    )
    assert counts == Counter(
        NAME=4, DATE=2, ID=2, RECORD=1, HOSPITAL=1, WARD=1, PHONE=1, EMAIL=1, AGE=1, ADDRESS=1
    )


def test_a_chinese_record(redactor: Redactor) -> None:
    text, counts = redactor.apply(RECORD)
    assert text == (
        "姓名：[NAME]  性别：男  住院号：[RECORD] 身份证号：[ID]，电话：[PHONE]。"
        "[DATE]于[HOSPITAL]就诊，[NAME]主任查房。家住[ADDRESS]。[NAME]诉胸痛。"
    )
    assert counts["NAME"] == 3


@pytest.mark.parametrize("text", CLEAN)
def test_medical_numbers_and_words_stay(redactor: Redactor, text: str) -> None:
    assert redactor.apply(text) == (text, Counter())


def test_a_text_once_redacted_is_left_alone(redactor: Redactor) -> None:
    for text in (LETTER, RECORD):
        once, _ = redactor.apply(text)
        assert redactor.apply(once) == (once, Counter())


def test_check_digits() -> None:
    assert chinese_id("11010519491231002X")
    assert not chinese_id("110105194912310021")
    assert not chinese_id("11010519491331002X")
    assert luhn("4111 1111 1111 1111")
    assert not luhn("4111 1111 1111 1112")
    assert vehicle_number("1M8GDM9AXKP042788")
    assert not vehicle_number("1M8GDM9A0KP042788")
    assert numeric_date("31/12/1999")
    assert numeric_date("1999-02-29")  # a wrong leap day still tells about a person
    assert not numeric_date("31/31/1999")
    assert not numeric_date("12/2019")


def test_refuse_names_file_and_line_and_counts_but_never_the_text() -> None:
    refuser = Redactor.open("refuse")
    assert refuser.apply("Nothing here.", "a.txt") == ("Nothing here.", Counter())
    with pytest.raises(UserError) as caught:
        refuser.apply("A line.\nMr. John Smith came.\nMRN 00123456", "notes/a.txt")
    told = str(caught.value)
    assert told.startswith(
        "notes/a.txt:2: holds what may identify a person (1 NAME, 1 RECORD; line 2, 3 of its text)"
    )
    assert 'phi = "redact"' in told
    assert "Smith" not in told
    assert "00123456" not in told
    with pytest.raises(UserError, match=r"^a\.jsonl#7: holds"):
        refuser.apply("Mr. John Smith", "a.jsonl#7")


def test_a_document_loses_its_path_and_title(redactor: Redactor) -> None:
    record = Document(
        "ward/smith_john.txt#2", "Mr. Smith was seen.", "", title="Mr. John Smith, letter"
    )
    changed, counts = redactor.record(record)
    assert changed.id.startswith("text-")
    assert changed.id.endswith("#2")
    assert (changed.title, changed.text) == ("Mr. [NAME], letter", "Mr. [NAME] was seen.")
    assert counts == {"NAME": 2}
    assert redactor.record(record)[0] == changed


def test_an_example_keeps_its_shape(redactor: Redactor) -> None:
    fields = {
        "messages": [
            {"role": "user", "content": "I am Mr. John Smith."},
            {"role": "assistant", "content": "Good day. Smith should take 5 mg."},
        ],
        "n": 3,
    }
    record = Example("x", "s", "conversation", "chat.conversation", fields)
    changed, _ = redactor.record(record)
    assert [m["content"] for m in changed.fields["messages"]] == [
        "I am Mr. [NAME].",
        "Good day. [NAME] should take 5 mg.",
    ]
    assert changed.fields["n"] == 3
    assert changed.fields["messages"][0]["role"] == "user"


def test_nothing_found_is_ever_logged(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    redactor = Redactor.open("redact")
    redactor.apply(
        LETTER + " https://smith.example.org/p 10.1.2.3 DEA AB1234563 4111 1111 1111 1111"
    )
    redactor.apply(RECORD)
    written = caplog.text + "".join(capsys.readouterr())
    for value in (
        "Smith",
        "Carter",
        "00123456",
        "555-0123",
        "jane.doe",
        "219-09",
        "张小明",
        "13812345678",
        "4111",
    ):
        assert value not in written


def test_names_by_a_model_of_the_user(tmp_path: Path) -> None:
    import spacy

    model = spacy.blank("en")
    ruler: Any = model.add_pipe("entity_ruler")
    ruler.add_patterns(
        [{"label": "PERSON", "pattern": "Zvonimir Babic"}, {"label": "GPE", "pattern": "Boise"}]
    )
    model.to_disk(tmp_path / "model")
    text = "Then Zvonimir Babic flew to Boise. Babic slept."
    assert Redactor.open("redact").apply(text)[0] == text
    with_model = Redactor.open("redact", model=str(tmp_path / "model"))
    assert with_model.apply(text)[0] == "Then [NAME] flew to [LOCATION]. [NAME] slept."


def test_faults_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UserError,
        match="unknown privacy policy 'redct'; allowed: redact, refuse; did you mean 'redact'",
    ):
        Redactor.open("redct")
    with pytest.raises(UserError, match="not a spaCy model folder"):
        Redactor.open("redact", model=str(tmp_path))
    (tmp_path / "meta.json").write_text("{")
    (tmp_path / "config.cfg").write_text("[nlp")
    with pytest.raises(UserError, match="spaCy cannot load this model"):
        Redactor.open("redact", model=str(tmp_path))
    monkeypatch.setitem(sys.modules, "presidio_analyzer.predefined_recognizers", None)
    with pytest.raises(
        UserError, match=r"redaction needs presidio-analyzer .*pip install 'medexpert\[phi\]'"
    ):
        Redactor.open("redact")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300), st.sampled_from([LETTER, RECORD, ""]))
def test_spans_are_ordered_apart_and_of_known_kinds(text: str, told: str) -> None:
    redactor = Redactor.open("redact") if not _KEPT else _KEPT[0]
    _KEPT[:] = [redactor]
    whole = text + told
    spans = redactor.find(whole)
    assert all(0 <= span.start < span.end <= len(whole) and span.kind in KINDS for span in spans)
    assert all(a.end <= b.start for a, b in pairwise(spans))


_KEPT: list[Redactor] = []


@pytest.mark.parametrize(
    "piece",
    [
        "A ",
        "a.",
        "1-",
        "1 ",
        "Aa ",
        "St. ",
        "x@",
        "市",
        "王",
        "省市区",
        "12/",
        "Mr. ",
        "a:",
        "AB12",
        "Name: ",
        "of the ",
        "路1",
        "·王",
    ],
)
def test_no_text_takes_long(redactor: Redactor, piece: str) -> None:
    text = piece * (100_000 // len(piece))
    start = time.process_time()
    redactor.find(text)
    assert time.process_time() - start < 10


def test_the_share_of_texts_redacted_is_the_same_on_any_run(redactor: Redactor) -> None:
    words = (LETTER + RECORD).split()
    random.Random(3).shuffle(words)
    assert redactor.apply(" ".join(words)) == Redactor.open("redact").apply(" ".join(words))
