"""The starter data: counts as its card says, valid, and no text twice."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

STARTER = Path(__file__).resolve().parents[2] / "src" / "medexpert" / "data" / "starter"
FILES = sorted(STARTER.glob("*.jsonl"))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_the_card_counts_every_file() -> None:
    counted: dict[str, int] = {}
    for line in (STARTER / "CARD.md").read_text("utf-8").splitlines():
        names = re.findall(r"`([\w.]+\.jsonl)`", line)
        if names:
            numbers = [int(n) for n in re.findall(r"\d+", line.split("|")[2])]
            counted |= dict(zip(names, numbers, strict=True))
    assert counted == {path.name: len(rows(path)) for path in FILES}


@pytest.mark.parametrize(
    ("kind", "english", "chinese"),
    [("passages", 150, 40), ("qa", 100, 25), ("reasoning", 60, 15), ("mcq", 100, 25),
     ("conversations", 30, 8)],
)  # fmt: skip
def test_there_is_enough_of_each(kind: str, english: int, chinese: int) -> None:
    found = {
        lang: sum(len(rows(p)) for p in STARTER.glob(f"{kind}_{lang}*")) for lang in ("en", "zh")
    }
    assert found["en"] >= english
    assert found["zh"] >= chinese


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_records_are_whole_and_different(path: Path) -> None:
    found = rows(path)
    assert len({row["id"] for row in found}) == len(found)
    assert len({json.dumps({k: v for k, v in row.items() if k != "id"}) for row in found}) == len(
        found
    )
    for row in found:
        assert all(value not in ("", [], {}) for value in row.values()), row["id"]
        if "options" in row:
            assert row["answer_idx"] in row["options"], row["id"]
            assert len(set(row["options"].values())) == len(row["options"]), row["id"]
        if "messages" in row:
            roles = [message["role"] for message in row["messages"]]
            assert roles == ["user", "assistant"] * (len(roles) // 2), row["id"]


@pytest.mark.parametrize("name", ["mcq_en.jsonl", "mcq_zh.jsonl"])
def test_right_answers_do_not_sit_in_one_place(name: str) -> None:
    places = Counter(row["answer_idx"] for row in rows(STARTER / name))
    assert max(places.values()) <= 0.35 * places.total()
