from __future__ import annotations

from typing import Any

import pytest

from medexpert.evaluate.groups import group_score
from medexpert.evaluate.tasks import GROUPS
from medexpert.records import UserError


def result(task: str, correct: int, n: int, **changes: Any) -> dict[str, Any]:
    return {"task": task, "correct": correct, "n": n, "accuracy": correct / n, "unparsed": 0,
            "protocol": "question-only", "strategy": "direct", "model": "m", "split": "test",
            "limit": 0} | changes  # fmt: skip


def test_macro_weighs_tasks_and_micro_questions() -> None:
    rows = [result(task, 1, 2) for task in GROUPS["mmlu-general"][:3]]
    found = group_score("mmlu-general", [*rows, result("mmlu-sociology", 0, 94)])
    assert found["complete"]
    assert found["macro_accuracy"] == pytest.approx(3 * 0.5 / 4)
    assert found["micro_accuracy"] == pytest.approx(3 / 100)
    assert found["micro_interval"]["low"] < 0.03 < found["micro_interval"]["high"]


def test_a_part_of_a_group_is_not_the_group() -> None:
    found = group_score("mmlu-medical", [result("mmlu-anatomy", 5, 10)])
    assert not found["complete"]
    assert len(found["missing"]) == len(GROUPS["mmlu-medical"]) - 1
    assert "mmlu-virology" in found["missing"]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "no result of mmlu-medical"),
        ([result("pubmedqa", 1, 2)], "pubmedqa is no member of mmlu-medical"),
        ([result("mmlu-anatomy", 1, 2)] * 2, "two results of mmlu-anatomy"),
        (
            [result("mmlu-anatomy", 1, 2), result("mmlu-virology", 1, 2, strategy="voc")],
            "strategy is 'direct' in mmlu-anatomy and 'voc' in mmlu-virology",
        ),
        (
            [
                result(task, 1, 2, strategy="direct:shots=2", seed=seed)
                for seed, task in enumerate(("mmlu-anatomy", "mmlu-virology"))
            ],
            "seed is 0 in mmlu-anatomy and 1 in mmlu-virology",
        ),
        (
            [
                result(task, 1, 2, strategy="of another version", seed=seed)
                for seed, task in enumerate(("mmlu-anatomy", "mmlu-virology"))
            ],
            "seed is 0 in mmlu-anatomy and 1 in mmlu-virology",
        ),
        (
            [
                result("mmlu-anatomy", 1, 2, strategy_version=v) | {"task": t}
                for t, v in (("mmlu-anatomy", "1"), ("mmlu-virology", "2"))
            ],
            "strategy_version is '1' in mmlu-anatomy and '2' in mmlu-virology",
        ),
    ],
)
def test_what_does_not_belong_together_is_refused(rows: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        group_score("mmlu-medical", rows)


def test_the_seed_of_what_no_seed_changes_is_no_difference() -> None:
    rows = [result(t, 1, 2, seed=s) for s, t in enumerate(("mmlu-anatomy", "mmlu-virology"))]
    found = group_score("mmlu-medical", rows)
    assert (found["n"], found["seed"]) == (4, None)
    assert group_score("mmlu-medical", rows[1:])["seed"] == 1


def test_an_unknown_group() -> None:
    with pytest.raises(UserError, match=r"did you mean 'mmlu-medical'\?"):
        group_score("mmlu-medicin", [])
