from __future__ import annotations

from medexpert.data.dedup import Seen, fingerprint, normalise
from medexpert.records import Document, Example


def doc(text: str, **more: str) -> Document:
    return Document(more.get("id", "a"), text, "s", title=more.get("title", ""))


def test_normalisation() -> None:
    assert normalise("Ａ  B\n\tc") == "a b c"
    assert fingerprint(doc("A b", id="1", title="x")) == fingerprint(doc(" a  B ", id="2"))
    assert fingerprint(doc("p < 0.05")) != fingerprint(doc("p > 0.05"))


def test_fields_are_not_run_together() -> None:
    def example(question: str, answer: str) -> Example:
        return Example("a", "s", "qa", "chat.qa", {"question": question, "answer": answer})

    assert fingerprint(example("a b", "c")) != fingerprint(example("a", "b c"))


def test_within_and_across_sources() -> None:
    seen = Seen()
    assert seen.reason(doc("one"), "first") is None
    assert seen.reason(doc("ONE"), "first") == "duplicate"
    assert seen.reason(doc("one"), "second") == "duplicate_of_first"
    assert seen.reason(doc("two"), "second") is None
