"""The generated corpus plants what it says, at a tiny size."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from random import Random

import corpus
import pytest
from corpus import Writer, benchmark_item, edited, planned, write_corpus

DOCUMENTS = 200
NUMBERS = re.compile(r"\d+(?:\.\d+)?")


def rows_of(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_corpus(tmp_path / name, DOCUMENTS, seed=seed)
    files = [p.relative_to(tmp_path / "a") for p in sorted((tmp_path / "a").rglob("*.jsonl"))]
    assert len(files) == 4  # two shards, plan, benchmark
    for file in files:
        first = (tmp_path / "a" / file).read_bytes()
        assert first == (tmp_path / "b" / file).read_bytes()
        assert first != (tmp_path / "c" / file).read_bytes()


def test_roles_have_their_shares() -> None:
    roles = Counter(what.role for what in Writer(1, 1000).plan())
    assert roles == {
        "plain": 850, "near": 100, "exact": 20, "dose": 10, "context": 10, "question": 10,
    }  # fmt: skip


def test_plan_names_the_originals(tmp_path: Path) -> None:
    write_corpus(tmp_path, DOCUMENTS, seed=1)
    texts = {r["id"]: r["text"] for f in (tmp_path / "shards").glob("*") for r in rows_of(f)}
    assert len(texts) == DOCUMENTS
    items = {row["id"]: row for row in rows_of(tmp_path / "benchmark.jsonl")}
    assert len(items) == corpus.ITEMS
    seen = Counter()
    for row in rows_of(tmp_path / "plan.jsonl"):
        text, role = texts[row["id"]], row["role"]
        seen[role] += 1
        if role == "exact":
            assert text == texts[row["base"]]
        elif role == "dose":
            assert text == texts[row["base"]].replace(" was 5 mg a day", " was 10 mg a day")
            assert text != texts[row["base"]]
        elif role == "near":
            assert NUMBERS.findall(text) == NUMBERS.findall(texts[row["base"]])
        elif role in ("context", "question"):
            assert items[f"item-{row['item']}"][role] in text
    assert seen["exact"] == 4
    assert seen["dose"] == seen["context"] == seen["question"] == 2


def test_half_of_the_documents_have_boilerplate() -> None:
    writer = Writer(1, 1000)
    plain = [what for what in writer.plan() if what.role == "plain"]
    with_it = sum(writer.text(what) != writer.body(what) for what in plain)
    assert 0.4 < with_it / len(plain) < 0.6
    assert 1_400 < sum(len(writer.text(what)) for what in plain) / len(plain) < 1_900


@pytest.mark.parametrize("edits", [0, 1, 14])
def test_edits_replace_words_and_no_number(edits: int) -> None:
    writer = Writer(1, 100)
    text = writer.body(planned(1, 3, 100))
    changed = edited(text, edits, Random(1))
    before, after = text.split(), changed.split()
    assert len(before) == len(after)
    assert sum(a != b for a, b in zip(before, after, strict=True)) == edits
    assert NUMBERS.findall(text) == NUMBERS.findall(changed)


def test_no_sentence_of_the_starter_passages_is_in_it() -> None:
    writer = Writer(1, 100)
    text = " ".join(writer.body(what) for what in writer.plan()).lower()
    words = " ".join(re.findall(r"[a-z]+", text))
    for passage in corpus._starter("passages_en_1.jsonl"):
        for sentence in re.split(r"[.!?] ", passage):
            found = re.findall(r"[a-z]+", sentence.lower())
            assert len(found) < 10 or " ".join(found) not in words


def test_chinese_variants_change_script_and_width_only() -> None:
    writer = Writer(1, 400, "zh")
    kinds = Counter()
    for what in writer.plan():
        body, text = writer.body(what), writer.text(what)
        kind = writer.variant(what)
        if what.role != "near":
            assert kind == "plain"
            assert text == body
            continue
        kinds[kind] += 1
        assert len(text) == len(body)
        assert (text == body) == (kind == "plain")
        if kind == "width":
            assert any("\uff10" <= c <= "\uff5a" for c in text)
    assert kinds == {"plain": 12, "traditional": 12, "width": 8, "both": 8}


def test_benchmark_questions_are_long_enough_to_be_found() -> None:
    items = [benchmark_item(1, number) for number in range(100)]
    assert min(len(item["question"].split()) for item in items) >= 8
    assert len({item["question"] for item in items}) == 100


@pytest.mark.parametrize(
    ("documents", "language", "what"),
    [(150, "en", "a multiple of 100"), (0, "en", "a multiple of 100"), (100, "de", "not one of")],
)
def test_a_wrong_size_or_language_is_refused(documents: int, language: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        Writer(1, documents, language)
