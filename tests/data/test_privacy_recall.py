"""Recall of the redactor on generated notes, by kind: every planted value is known and invented.

Run as a program with `tests` on the path, it prints the figures of `docs/private-text.md`:
`PYTHONPATH=src:tests python tests/data/test_privacy_recall.py`.
"""

from __future__ import annotations

from collections import Counter
from random import Random

from invented_notes import HAN_TEXT, HARD, TEXT, chinese_note, english_note
from medexpert.data.privacy import Redactor


def hard_forms() -> dict[str, tuple[int, int]]:
    """{kind: (found, all)} of HARD."""
    redactor = Redactor.open("redact")
    gone: Counter[str] = Counter()
    for kind, text, value in HARD:
        gone[kind] += value not in redactor.apply(text)[0]
    return {kind: (gone[kind], sum(k == kind for k, _, _ in HARD)) for kind in gone}


def test_most_hard_forms_are_found() -> None:
    found = hard_forms().values()
    assert sum(gone for gone, _ in found) / sum(count for _, count in found) >= 0.85


def recall(count: int = 300) -> dict[str, dict[str, tuple[int, int]]]:
    """{language: {kind: (planted values gone from the text, planted values)}}."""
    redactor, table = Redactor.open("redact"), {}
    for lang, make in (("en", english_note), ("zh", chinese_note)):
        gone: Counter[str] = Counter()
        planted: Counter[str] = Counter()
        for seed in range(count):
            note = make(Random(seed))
            text, _ = redactor.apply(note.text)
            for kind, value in note.planted:
                planted[kind] += 1
                gone[kind] += value not in text
        table[lang] = {kind: (gone[kind], planted[kind]) for kind in sorted(planted)}
    return table


def test_most_of_what_is_planted_is_found() -> None:
    for kinds in recall(100).values():
        for kind, (gone, planted) in kinds.items():
            if not kind.endswith("bare"):
                assert gone / planted >= 0.9, kind


def test_the_doses_and_values_between_stay() -> None:
    redactor = Redactor.open("redact")
    for seed in range(50):
        text, _ = redactor.apply(english_note(Random(seed)).text)
        assert TEXT in text
        text, _ = redactor.apply(chinese_note(Random(seed)).text)
        assert HAN_TEXT in text


if __name__ == "__main__":
    for lang, kinds in recall().items():
        print(
            lang,
            *(
                f"{kind} {gone}/{planted} {gone / planted:.3f}"
                for kind, (gone, planted) in kinds.items()
            ),
            sep="\n  ",
        )
    print(
        "hard forms",
        *(f"{kind} {gone}/{count}" for kind, (gone, count) in hard_forms().items()),
        sep="\n  ",
    )
