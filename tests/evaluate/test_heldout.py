from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medexpert.evaluate.heldout import bits_per_byte, write_heldout
from medexpert.manifest import read_json
from medexpert.records import Document, UserError, to_json

TEXTS = ["alpha beta", "καλημέρα", " ", "x" * 50]


def documents() -> list[Document]:
    return [Document(str(i), t, "a" if i < 2 else "b") for i, t in enumerate(TEXTS)]


def test_half_a_nat_a_byte(fakes: SimpleNamespace) -> None:
    made = bits_per_byte(fakes.engine(), documents(), roles={"b": "general"})
    assert list(made) == ["a", "b"]
    assert made["a"]["bits_per_byte"] == pytest.approx(0.5 / math.log(2))
    assert (made["a"]["documents"], made["a"]["bytes"], made["a"]["tokens"]) == (2, 10 + 16, 3)
    assert made["a"]["interval"]["low"] == pytest.approx(0.5 / math.log(2))
    assert (made["b"]["role"], made["b"]["empty"], made["b"]["interval"]) == ("general", 1, None)


def test_more_documents_than_one_batch(fakes: SimpleNamespace) -> None:
    lines: list[str] = []
    many = [Document(str(i), "word " * (i + 1), "a") for i in range(40)]
    made = bits_per_byte(fakes.engine(), many, progress=lines.append)
    assert made["a"]["documents"] == 40
    assert lines[-1] == "held-out text: 40 documents scored"


def test_write_heldout(fakes: SimpleNamespace, tmp_path: Path) -> None:
    source = tmp_path / "heldout.jsonl"
    source.write_text("".join(to_json(d) + "\n" for d in documents()), encoding="utf-8")
    made = write_heldout(fakes.engine(), source, tmp_path / "base" / "heldout.json")
    assert read_json(tmp_path / "base" / "heldout.json") == made


def test_nothing_to_score(fakes: SimpleNamespace) -> None:
    with pytest.raises(UserError, match="no held-out document has text to score"):
        bits_per_byte(fakes.engine(), [Document("1", "  ", "a")])


class Broken:
    name, chat = "broken", ("", "", "")

    def text_logprobs(self, texts: Sequence[str]) -> list[Any]:
        return [SimpleNamespace(logprob=float("-inf"), tokens=1, bytes=3) for _ in texts]


def test_an_infinite_loss_is_an_error() -> None:
    with pytest.raises(UserError, match="no finite probability to the held-out text of a"):
        bits_per_byte(Broken(), [Document("1", "abc", "a")])  # type: ignore[arg-type]
