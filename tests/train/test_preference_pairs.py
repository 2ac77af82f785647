"""What becomes of an example with a rejected answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medexpert.prompt.template import ChatFormat
from medexpert.recipe_train import Preference, Stage
from medexpert.records import UserError
from medexpert.train.batches import IGNORE, Account, Piece
from medexpert.train.preference import (
    pieces,
)

PLAIN = ChatFormat("", "", "$")
WEIGHTS = Preference(beta=0.3, likelihood=0.2)


class Letters:
    """A letter a token."""

    def more(self, text: str) -> list[int]:
        return [ord(c) % 90 + 5 for c in text]

    start = more


def read(
    folder: Path,
    *rows: tuple[str, dict[str, Any]],
    length: int = 400,
    chat: ChatFormat = PLAIN,
    **stage: Any,
) -> tuple[list[Piece], Account]:
    path = folder / "pairs.jsonl"
    lines = [
        {"id": str(n), "source": "s", "kind": "qa", "template": template, "fields": fields}
        for n, (template, fields) in enumerate(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    account = Account()
    found = pieces(path, Letters(), chat, length, account, 0, Stage(**stage))
    return list(found), account


def halves(piece: Piece) -> list[tuple[list[int], list[int]]]:
    (cut,) = piece.breaks
    return [
        (piece.inputs[a:b].tolist(), [t for t in piece.targets[a:b].tolist() if t != IGNORE])
        for a, b in ((0, cut), (cut, len(piece)))
    ]


def ids(text: str) -> list[int]:
    return Letters().more(text)


QA = {"question": "Is it?", "answer": "yes", "rejected": "never"}


def test_a_pair_is_two_items_with_one_prompt(tmp_path: Path) -> None:
    (piece,), account = read(tmp_path, ("chat.qa", QA))
    prompt = "### Question\nIs it?\n\n### Answer\n"
    (one, learned), (other, also_learned) = halves(piece)
    assert one == ids(prompt + "yes")
    assert other == ids(prompt + "never")
    assert learned == ids("yes$")
    assert also_learned == ids("never$")
    assert (account.items, account.tokens, account.loss_tokens) == (1, len(piece), 10)


@pytest.mark.parametrize(
    ("template", "fields", "chosen", "rejected"),
    [
        ("pubmedqa.lm_eval", {"question": "q", "contexts": ["c"], "answer": "yes",
                              "rejected": "no"}, " yes$", " no$"),
        ("chat.mcq_label", {"question": "q", "options": {"A": "a", "B": "b"}, "answer_idx": "A",
                            "rejected": "B"}, "A$", "B$"),
        ("chat.reasoning", {"question": "q", "rationale": "r", "answer": "yes",
                            "rejected": {"rationale": "w", "answer": "no"}},
         "r\n\nSo the answer is yes.$", "w\n\nSo the answer is no.$"),
        ("chat.conversation", {"messages": [
            {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"},
            {"role": "user", "content": "v"}, {"role": "assistant", "content": "b"},
        ], "rejected": "c"}, "b$", "c$"),
    ],
)  # fmt: skip
def test_rejected_takes_the_place_of_the_answer(
    template: str, fields: dict[str, Any], chosen: str, rejected: str, tmp_path: Path
) -> None:
    (piece,), _ = read(tmp_path, (template, fields))
    first, second = halves(piece)
    assert (first[1], second[1]) == (ids(chosen), ids(rejected))
    assert first[0][: -len(first[1])] == second[0][: -len(second[1])]


def test_what_cannot_be_compared_is_counted(tmp_path: Path) -> None:
    found, account = read(
        tmp_path,
        ("chat.qa", {"question": "q", "answer": "a"}),
        ("chat.qa", {**QA, "rejected": "yes"}),
        ("chat.qa", {**QA, "question": "q" * 200}),
        ("chat.qa", QA),
        length=100,
    )
    assert len(found) == 1
    assert account.items == 4
    assert account.dropped == {
        "no rejected answer": 1, "chosen and rejected answer are the same": 1,
        "longer than sequence_length": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({**QA, "rejected": 3}, r"jsonl:1: 0: 'rejected' is of type int; allowed: a text, or"),
        ({**QA, "rejected": {"anser": "x"}}, r"names 'anser'.*allowed: question, answer"),
        ({**QA, "rejected": {"question": "x"}}, r"jsonl:1: 0: chosen and rejected .* prompts"),
        ({"question": "q", "rejected": "x"}, r"jsonl:1: 0: .*'answer' is undefined"),
    ],
)
def test_faults_of_a_pair_are_named(fields: dict[str, Any], error: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=error):
        read(tmp_path, ("chat.qa", fields))


def test_pairs_have_the_task_of_their_example(tmp_path: Path) -> None:
    task = {"question": "q", "contexts": ["c"], "answer": "yes", "rejected": "no"}
    found, _ = read(tmp_path, ("pubmedqa.lm_eval", task), ("chat.qa", QA), method="cpoly")
    assert [piece.task for piece in found] == [1, 0]


def test_both_ways_reading_covers_the_prompt(tmp_path: Path) -> None:
    (piece,), _ = read(tmp_path, ("chat.qa", QA), attention="prefix")
    assert piece.prefix == len("### Question\nIs it?\n\n### Answer\n")
    (plain,), _ = read(tmp_path, ("chat.qa", QA))
    assert plain.prefix == 0
