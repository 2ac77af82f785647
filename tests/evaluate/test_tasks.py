from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from medexpert.evaluate.metrics import official_score
from medexpert.evaluate.tasks import TASKS, task_named
from medexpert.manifest import read_json
from medexpert.records import UserError

DATA = Path(os.environ.get("MEDEXPERT_DATA", Path(__file__).parents[3] / "shared" / "data"))


def test_names() -> None:
    assert {name: task.official for name, task in TASKS.items()} == {
        "pubmedqa": True,
        "trialgen": False,
    }
    with pytest.raises(UserError, match=r"unknown task 'pubmed_qa'.*did you mean 'pubmedqa'\?"):
        task_named("pubmed_qa")


@pytest.mark.parametrize("name", list(TASKS))
def test_the_conclusion_is_withheld(name: str) -> None:
    with pytest.raises(UserError, match=r"'reasoning-free' cannot run on .*: it shows the concl"):
        task_named(name).check_protocol("reasoning-free")


@pytest.mark.parametrize("name", list(TASKS))
def test_splits(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} has no split 'tset'"):
        task_named(name).load(Path(), "tset")


def test_trialgen_is_fixed_and_needs_no_data(tmp_path: Path) -> None:
    made = task_named("trialgen").load(tmp_path / "nowhere", "test")
    assert made == task_named("trialgen").load(Path(), "test")
    assert len({q.id for q in made}) == len(made) == 200
    assert {q.answer for q in made} == {"yes", "no", "maybe"}
    assert all(q.contexts and not q.long_answer for q in made)


def test_pubmedqa_is_the_official_test() -> None:
    if not (DATA / "stage3" / "pubmedqa").is_dir():
        pytest.skip(f"no PubMedQA under {DATA} (set MEDEXPERT_DATA)")
    asked = task_named("pubmedqa").load(DATA, "test")
    truth = read_json(DATA / "stage3" / "pubmedqa" / "test_ground_truth.json")
    gold = {q.id: q.answer for q in asked}
    assert official_score(gold, truth) == {"accuracy": 1.0, "macro_f1": 1.0}
    assert Counter(gold.values()) == {"yes": 276, "no": 169, "maybe": 55}
    assert not any(q.long_answer for q in asked)
    always = official_score(dict.fromkeys(gold, "yes"), truth)
    assert always["accuracy"] == 0.552
    dev = task_named("pubmedqa").load(DATA, "dev-0")
    assert len(dev) == 50
    assert not {q.id for q in dev} & set(gold)
