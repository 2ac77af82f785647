"""The cost table: means a question, what is not known, the choice at a matched cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medexpert.evaluate.costs import cost_rows, cost_table, matched
from medexpert.records import UserError

USAGE = {
    "calls": 30, "prompt_tokens": 4000, "prefilled_tokens": 1500, "generated_tokens": 1280,
    "seconds": 20.0, "cost": 0.0,
}  # fmt: skip


def result(strategy: str, generated: int = 1280, **changes: Any) -> dict[str, Any]:
    return {
        "task": "pubmedqa", "split": "test", "protocol": "reasoning-required", "model": "m",
        "strategy": strategy, "n": 10, "accuracy": 0.6, "seconds": 25.0,
        "accuracy_interval": {"low": 0.31, "high": 0.83},
        "tokens": {"prompt": 4000, "generated": generated}, "usage": USAGE, **changes,
    }  # fmt: skip


def test_a_row_is_means_a_question() -> None:
    (row,) = cost_rows([result("voc:k=1")])
    assert (row.calls, row.prompt_tokens, row.prefilled_tokens, row.decoded_tokens) == (
        3.0, 400.0, 150.0, 128.0,
    )  # fmt: skip
    assert (row.seconds, row.money, row.family) == (2.5, None, "voc")
    (resumed,) = cost_rows([result("voc", resumed_at=5)])
    assert (resumed.calls, resumed.decoded_tokens) == (6.0, 128.0)


def test_what_was_written_on_examples_first_is_part_of_the_cost() -> None:
    usage = {**USAGE, "questions": 5, "prompt_tokens": 9000, "generated_tokens": 2000}
    (row,) = cost_rows([result("medprompt", 1280, usage=usage, n=5)])
    assert (row.prompt_tokens, row.decoded_tokens) == (1800.0, 400.0)
    assert matched([row], 300) == []


def test_what_is_not_known_is_not_zero() -> None:
    (row,) = cost_rows([{"n": 2, "accuracy": 0.5, "strategy": "direct"}])
    assert (row.calls, row.decoded_tokens, row.seconds, row.money) == (None, None, None, None)
    assert cost_table([row]).splitlines()[2] == (
        "|  |  | direct | - | 2 | 50.0 | - | - | - | - | - | - | - |"
    )
    with pytest.raises(UserError, match="direct: a result without questions"):
        cost_rows([{"n": 0, "accuracy": 0.0, "strategy": "direct"}])


def test_table() -> None:
    results = [result("direct", 0, seed=7), result("voc", usage={**USAGE, "cost": 1})]
    header, marks, direct, voc = cost_table(cost_rows(results)).splitlines()
    assert header.startswith("| model | task | strategy | seed | n | accuracy | 95 % interval |")
    assert header.count("|") == marks.count("|") == direct.count("|")
    assert direct == (
        "| m | pubmedqa (reasoning-required) | direct | 7 | 10 | 60.0 | 31.0 to 83.0 | 3.0 | 400 "
        "| 150 | 0 | 2.50 | - |"
    )
    assert voc.endswith("| 128 | 2.50 | 0.10000 |")


def test_matched_cost_takes_what_spends_most_within_the_budget_not_what_is_best() -> None:
    rows = cost_rows(
        [
            result("self_consistency:k=3", 4320, accuracy=0.9),
            result("self_consistency:k=5", 7200, accuracy=0.5),
            result("self_consistency:k=11", 15840),
            result("voc", 3840),
            result("direct", 0),
            result("direct", 0, model="other"),
            result("cot", 0, tokens=None, usage=None),
        ]
    )
    found = [(row.model, row.strategy) for row in matched(rows, 720)]
    assert found == [
        ("m", "self_consistency:k=5"), ("m", "voc"), ("m", "direct"), ("other", "direct"),
    ]  # fmt: skip
    assert [row.strategy for row in matched(rows, 0)] == ["direct", "direct"]
    with pytest.raises(UserError, match="budget -1"):
        matched(rows, -1)


def test_matched_cost_keeps_the_seeds_of_a_strategy_together() -> None:
    def runs(strategy: str, generated: tuple[int, ...], first: int = 0) -> list[dict[str, Any]]:
        return [result(strategy, g, seed=s) for s, g in enumerate(generated, first)]

    rows = cost_rows(
        [
            *runs("self_consistency:k=3", (4000, 4100, 4200)),
            *runs("self_consistency:k=5", (7300, 7000, 6900)),  # seed 0 alone goes over 720
            *runs("medprompt", (7100, 7400), 1),
            *runs("direct", (0,)),
        ]
    )
    found = [(row.strategy, row.seed) for row in matched(rows, 720)]
    assert found == [("self_consistency:k=5", seed) for seed in range(3)] + [("direct", 0)]
    found = [(row.strategy, row.seed) for row in matched(rows, 700)]
    assert found == [("self_consistency:k=3", seed) for seed in range(3)] + [("direct", 0)]
    with pytest.raises(UserError, match=r"voc with seed 3 is there twice \(m, pubmedqa\)"):
        matched(cost_rows([*runs("voc", (100,), 3), *runs("voc", (90,), 3)]), 720)


def test_the_committed_results_have_rows() -> None:
    root = Path(__file__).resolve().parents[2] / "results"
    found = [json.loads(file.read_text("utf-8")) for file in sorted(root.rglob("result.json"))]
    rows = cost_rows(found)
    assert rows
    assert all(row.prompt_tokens and row.prompt_tokens > 100 for row in rows)
