"""A generated corpus with planted copies and leaks: invented text, the same for the same seed.

Sentences come from a grammar over our own word lists and from a word chain over the package's own
starter passages that jumps every few words, so that no sentence of anyone's is in it. Documents are
made one by one from (seed, number): a corpus of any size needs no memory. Of 100 documents 10 are
near-duplicates (0 to 14 words replaced, never a number), 2 exact copies, 1 the dose variant of
another ("5 mg" for "10 mg"), 1 holds a benchmark context, 1 a bare benchmark question, and half
end or begin with boilerplate.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import pairwise
from pathlib import Path

import numpy as np
from words import (
    BOILERPLATE,
    CHINESE,
    CHINESE_SENTENCES,
    DRUG_PARTS,
    ENGLISH,
    NOUNS,
    QUESTIONS,
    SENTENCES,
)

BLOCK = 100
PLAIN, NEAR, EXACT = range(83), range(84, 94), range(94, 96)
DOSE_BASE, DOSE_VARIANT, CONTEXT, QUESTION = 83, 96, 97, 98
ITEMS = 500
MOST_EDITS = 14
FILE_BYTES = 16 << 20
MEAN_BYTES = 1_720  # of a line, measured; only to choose how many files to write
LANGUAGES = ("en", "zh")
ZH_VARIANTS = ("plain", "traditional", "width", "both")


@dataclass(frozen=True)
class Planned:
    """What a document is: `role` plain, near, exact, dose, context or question; `base` the number
    of the document it is a copy of or -1; `item` the benchmark item it holds or -1."""

    number: int
    role: str
    base: int = -1
    item: int = -1


def planned(seed: int, number: int, documents: int) -> Planned:
    """The role of document `number`; a function of its place in its block of 100."""
    place = number % BLOCK
    rng = random.Random(f"plan {seed} {number}")
    blocks = documents // BLOCK
    if place in NEAR or place in EXACT:
        role = "near" if place in NEAR else "exact"
        return Planned(number, role, rng.randrange(blocks) * BLOCK + rng.choice(PLAIN))
    if place == DOSE_VARIANT:
        return Planned(number, "dose", number - DOSE_VARIANT + DOSE_BASE)
    if place in (CONTEXT, QUESTION):
        role = "context" if place == CONTEXT else "question"
        return Planned(number, role, item=rng.randrange(ITEMS))
    return Planned(number, "plain")


class Writer:
    """Makes the documents of one corpus."""

    def __init__(self, seed: int, documents: int, language: str = "en") -> None:
        if documents < BLOCK or documents % BLOCK:
            raise ValueError(f"documents = {documents}: a multiple of {BLOCK} is needed")
        if language not in LANGUAGES:
            raise ValueError(f"language {language!r} is not one of {', '.join(LANGUAGES)}")
        self.seed, self.documents, self.language = seed, documents, language

    def plan(self) -> Iterator[Planned]:
        """Every document in number order."""
        for number in range(self.documents):
            yield planned(self.seed, number, self.documents)

    def body(self, what: Planned) -> str:
        """The text without boilerplate; for Chinese before its variant of script and width."""
        if what.role == "exact":
            return self.body(planned(self.seed, what.base, self.documents))
        rng = self._rng(what.base if what.role in ("near", "dose") else what.number)
        dose = self._dose(what)
        text = _english(rng, dose) if self.language == "en" else _chinese(rng, dose)
        if what.role == "near":
            mine = self._rng(what.number)
            edit = edited if self.language == "en" else _edited_chinese
            return edit(text, mine.randrange(MOST_EDITS + 1), mine)
        if what.item >= 0 and self.language == "en":
            item = benchmark_item(self.seed, what.item)
            leaked = item["context"] if what.role == "context" else item["question"]
            middle = text.find(". ", len(text) // 2) + 2
            return f"{text[:middle]}{leaked} {text[middle:]}"
        return text

    def text(self, what: Planned) -> str:
        """The document as it is written to the corpus."""
        body = self.body(what)
        if self.language == "zh":
            variant = self.variant(what)
            return _zh_variant(body, variant)
        # A copy keeps its original's boilerplate, so that the truth is the same with and without.
        rng = random.Random(f"page {self.seed} {what.base if what.base >= 0 else what.number}")
        if rng.random() < 0.5:
            return body
        line = rng.choice(BOILERPLATE).format(year=rng.randrange(1995, 2025))
        return f"{body}\n{line}" if rng.random() < 0.7 else f"{line}\n{body}"

    def variant(self, what: Planned) -> str:
        """Script and width of a Chinese near-duplicate; every other document is plain."""
        return ZH_VARIANTS[what.number % 4] if what.role == "near" else "plain"

    def _rng(self, number: int) -> random.Random:
        return random.Random(f"{self.language} {self.seed} {number}")

    def _dose(self, what: Planned) -> str:
        place = (what.base if what.role == "dose" else what.number) % BLOCK
        if place != DOSE_BASE:
            return ""
        return "10" if what.role == "dose" else "5"


def benchmark_item(seed: int, number: int) -> dict[str, str]:
    """One item in the schema of a `file:` benchmark: question, context, answer, explanation."""
    rng = random.Random(f"benchmark {seed} {number}")
    context = " ".join(_sentence(rng) for _ in range(rng.randrange(5, 9)))
    return {
        "id": f"item-{number}",
        "question": _filled(rng.choice(QUESTIONS), rng),
        "context": context,
        "answer": rng.choice(("yes", "no", "maybe")),
        "explanation": _sentence(rng) + " " + _sentence(rng),
    }


def write_corpus(folder: Path, documents: int, *, seed: int, language: str = "en") -> None:
    """Write shards/NNNNN.jsonl, benchmark.jsonl and plan.jsonl; skipped when they are there.

    The plan has a line a document: id, number, role, id of its original, item. An even number of
    files of equal length, at most 16 MB each; the order of the documents is shuffled.
    """
    done = folder / "corpus.json"
    told = {"documents": documents, "seed": seed, "language": language, "format": 1}
    if done.exists() and json.loads(done.read_text("utf-8")) == told:
        return
    done.unlink(missing_ok=True)
    shards = folder / "shards"
    shards.mkdir(parents=True, exist_ok=True)
    for old in shards.glob("*.jsonl"):
        old.unlink()
    writer = Writer(seed, documents, language)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(documents)
    place = np.argsort(order)
    files = 2 * math.ceil(documents * MEAN_BYTES / (2 * FILE_BYTES))
    each = math.ceil(documents / files)
    with (folder / "plan.jsonl").open("w", encoding="utf-8") as plan:
        for file in range(files):
            with (shards / f"{file:05d}.jsonl").open("w", encoding="utf-8") as out:
                for at in range(file * each, min(documents, (file + 1) * each)):
                    what = planned(seed, int(order[at]), documents)
                    row = {"id": name_of(at), "text": writer.text(what)}
                    out.write(json.dumps(row, ensure_ascii=False) + "\n")
                    base = name_of(int(place[what.base])) if what.base >= 0 else ""
                    plan.write(json.dumps({"id": name_of(at), "number": what.number,
                                           "role": what.role, "base": base,
                                           "item": what.item}) + "\n")  # fmt: skip
    with (folder / "benchmark.jsonl").open("w", encoding="utf-8") as out:
        for number in range(ITEMS):
            out.write(json.dumps(benchmark_item(seed, number), ensure_ascii=False) + "\n")
    done.write_text(json.dumps(told), "utf-8")


def name_of(place: int) -> str:
    """The id of the document at a place of the corpus; it does not tell the document's role."""
    return f"bench-{place:08d}"


# -- English ---------------------------------------------------------------------------------------

_SLOT = re.compile(r"\{(\w+)\}")
_WORD = re.compile(r"[^\W\d_]{2,}")


def edited(text: str, edits: int, rng: random.Random) -> str:
    """The text with `edits` different words replaced by other words; numbers stay."""
    places = [match.span() for match in _WORD.finditer(text)]
    words = _chain()[1]
    chosen = sorted(rng.sample(range(len(places)), min(edits, len(places))), reverse=True)
    for place in chosen:
        start, end = places[place]
        old = text[start:end].lower()
        new = rng.choice(words)
        while new == old:
            new = rng.choice(words)
        text = text[:start] + new + text[end:]
    return text


def _english(rng: random.Random, dose: str) -> str:
    size = min(6000.0, max(350.0, rng.lognormvariate(7.25, 0.45)))
    parts: list[str] = []
    length = 0
    while length < size:
        part = _sentence(rng) if rng.random() < 0.5 else _chained(rng)
        parts.append(part)
        length += len(part) + 1
    if dose:
        drug = _drug(rng)
        parts.insert(len(parts) // 2, f"The starting dose of {drug} was {dose} mg a day.")
    return " ".join(parts)


def _sentence(rng: random.Random) -> str:
    return _filled(rng.choice(SENTENCES), rng)


def _filled(template: str, rng: random.Random) -> str:
    return _SLOT.sub(lambda slot: _word(slot.group(1), rng), template)


def _word(slot: str, rng: random.Random) -> str:
    low = slot.lower()
    if low in ENGLISH:
        found = rng.choice(ENGLISH[low])
        if low in NOUNS:
            found = _phrase(found, rng)
    else:
        found = _OTHER[low](rng)
    return found[0].upper() + found[1:] if slot != low else found


def _phrase(noun: str, rng: random.Random) -> str:
    """A noun with words of the chain around it, so that hardly any two sentences share eight
    words by chance, with as many function words as prose has."""
    words = _chain()[1]
    drawn = rng.random()
    if drawn < 0.1:
        return noun
    if drawn < 0.5:
        return f"the {rng.choice(ENGLISH['adj'])} {noun} of {rng.choice(words)}"
    if drawn < 0.8:
        return f"the {rng.choice(words)} {rng.choice(words)} {noun}"
    return f"{rng.choice(ENGLISH['adj'])} {noun} with {rng.choice(words)}"


def _drug(rng: random.Random) -> str:
    return "".join(rng.choice(part) for part in DRUG_PARTS.values())


_OTHER: dict[str, Callable[[random.Random], str]] = {
    "drug": _drug,
    "n": lambda rng: str(rng.randrange(2, 900)),
    "p": lambda rng: f"0.{rng.randrange(1, 999):03d}",
    "pct": lambda rng: f"{rng.randrange(1, 99)}.{rng.randrange(10)}",
    "dose": lambda rng: str(rng.choice((2, 5, 10, 20, 25, 40, 50, 100, 250, 500))),
}


@cache
def _chain() -> tuple[dict[str, list[str]], list[str]]:
    """(word -> the words after it, all words) in the package's own English passages."""
    after: dict[str, list[str]] = {}
    every: list[str] = []
    for name in ("passages_en_1.jsonl", "passages_en_2.jsonl", "general_en.jsonl"):
        for text in _starter(name):
            words = [w.lower() for w in re.findall(r"[A-Za-z]{2,}", text)]
            every += words
            for first, second in pairwise(words):
                after.setdefault(first, []).append(second)
    return after, every


def _chained(rng: random.Random) -> str:
    """A sentence of the word chain that jumps one word in three: no run of theirs is long."""
    after, every = _chain()
    word = rng.choice(every)
    words = [word]
    for _ in range(rng.randrange(7, 26)):
        word = rng.choice(after.get(word, every)) if rng.random() < 0.67 else rng.choice(every)
        words.append(word)
    if len(words) > 14:
        words[len(words) // 2] += ","
    return " ".join(words).capitalize() + "."


def _starter(name: str) -> Iterator[str]:
    file = resources.files("medexpert.data") / "starter" / name
    for line in file.read_text("utf-8").splitlines():
        row = json.loads(line)
        yield str(row["text"])


# -- Chinese ---------------------------------------------------------------------------------------


def _chinese(rng: random.Random, dose: str) -> str:
    size = min(2000.0, max(120.0, rng.lognormvariate(6.0, 0.4)))
    parts: list[str] = []
    length = 0
    while length < size:
        part = _zh_sentence(rng) if rng.random() < 0.5 else _zh_chained(rng)
        parts.append(part)
        length += len(part)
    if dose:
        parts.insert(len(parts) // 2, f"起始剂量为每日{dose} mg。")
    return "".join(parts)


def _zh_sentence(rng: random.Random) -> str:
    def word(slot: re.Match[str]) -> str:
        name = slot.group(1)
        return rng.choice(CHINESE[name]) if name in CHINESE else _OTHER[name](rng)

    return _SLOT.sub(word, rng.choice(CHINESE_SENTENCES))


@cache
def _zh_chain() -> tuple[dict[str, list[str]], list[str]]:
    after: dict[str, list[str]] = {}
    every: list[str] = []
    for text in _starter("passages_zh.jsonl"):
        for run in re.findall(r"[\u4e00-\u9fff]{2,}", text):
            every += run
            for first, second in pairwise(run):
                after.setdefault(first, []).append(second)
    return after, every


def _zh_chained(rng: random.Random) -> str:
    after, every = _zh_chain()
    word = rng.choice(every)
    words = [word]
    for _ in range(rng.randrange(8, 30)):
        word = rng.choice(after.get(word, every)) if rng.random() < 0.7 else rng.choice(every)
        words.append(word)
    return "".join(words) + "。"


def _edited_chinese(text: str, edits: int, rng: random.Random) -> str:
    characters = list(text)
    places = [i for i, c in enumerate(characters) if "\u4e00" <= c <= "\u9fff"]
    words = _zh_chain()[1]
    for place in rng.sample(places, min(edits, len(places))):
        old = characters[place]
        while characters[place] == old:
            characters[place] = rng.choice(words)
    return "".join(characters)


def _zh_variant(text: str, variant: str) -> str:
    if variant in ("traditional", "both"):
        text = _traditional().convert(text)
    if variant in ("width", "both"):
        text = "".join(chr(ord(c) + 0xFEE0) if c.isascii() and c.isalnum() else c for c in text)
    return text


@cache
def _traditional():  # type: ignore[no-untyped-def]
    from opencc import OpenCC

    return OpenCC("s2t")
