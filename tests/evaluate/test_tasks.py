from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from medexpert.data.catalogue import BENCHMARKS, locate
from medexpert.data.readers.benchmarks import BENCHMARK_READERS
from medexpert.evaluate.metrics import official_score
from medexpert.evaluate.sampling import sample
from medexpert.evaluate.subsets import item_of
from medexpert.evaluate.tasks import GROUPS, TASKS, expand, task_named, tasks_named
from medexpert.evaluate.tasks.present import require_files
from medexpert.manifest import read_json
from medexpert.records import UserError

DATA = Path(os.environ.get("MEDEXPERT_DATA", Path(__file__).parents[3] / "shared" / "data"))


def test_names() -> None:
    assert {"pubmedqa", "trialgen", "medqa-us", "bioasq-yesno", "mmlu-anatomy"} <= set(TASKS)
    assert [name for name, task in TASKS.items() if task.name != name] == []
    assert not TASKS["trialgen"].official
    with pytest.raises(UserError, match=r"unknown task 'pubmed_qa'.*did you mean 'pubmedqa'\?"):
        task_named("pubmed_qa")
    assert [task.name for task in tasks_named("medqa-us")] == ["medqa-us"]
    assert {task.name for task in tasks_named("mmlu-general")} == set(GROUPS["mmlu-general"])
    with pytest.raises(UserError, match=r"did you mean 'mmlu-medical'\?"):
        tasks_named("mmlu-medica")


def test_a_name_of_another_kind_is_told_what_it_is() -> None:
    with pytest.raises(UserError, match=r"answered in free text.*medexpert free --task liveqa-med"):
        expand(["liveqa-med"])
    with pytest.raises(UserError, match=r"mmlu-medical is a group of tasks.*mmlu-anatomy"):
        task_named("mmlu-medical")


def test_the_items_of_every_task_can_be_kept_out_of_training() -> None:
    for task in TASKS.values():
        assert task.kept_out_as in BENCHMARKS or task.name == "trialgen", task.name


def test_two_files_of_one_name_are_refused_not_merged(tmp_path: Path) -> None:
    row = '{"id": "1", "question": "%s?", "choices": ["a", "b"], "answer": 0}'
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "q.jsonl").write_text(row % name)
        files.append(f"file:{tmp_path / name / 'q.jsonl'}")
    assert len(expand([files[0], files[0], "trialgen"])) == 2
    with pytest.raises(UserError, match=r"two files are called file:q\.jsonl"):
        expand(files)


@pytest.mark.parametrize("name", ["pubmedqa", "trialgen"])
def test_the_conclusion_is_withheld(name: str) -> None:
    with pytest.raises(UserError, match=r"'reasoning-free' cannot run on .*: it shows the concl"):
        task_named(name).check_protocol("reasoning-free")


def test_reasoning_free_is_a_task_of_its_own_and_never_pubmedqa() -> None:
    task = task_named("pubmedqa-reasoning-free")
    task.check_protocol("reasoning-free")
    assert not any(task.is_official(split, "reasoning-free") for split in task.splits)
    for protocol in TASKS["pubmedqa"].protocols:
        with pytest.raises(UserError, match="shows the conclusion; task pubmedqa measures that"):
            task.check_protocol(protocol)


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
    # Its file is sorted by answer; a part of it is not.
    assert {q.answer for q in asked[:276]} == {"yes"}
    part = Counter(q.answer for q in sample(asked, 100))
    assert all(abs(part[name] - n) <= 12 for name, n in (("yes", 55), ("no", 34), ("maybe", 11)))
    dev = task_named("pubmedqa").load(DATA, "dev-0")
    assert len(dev) == 50
    assert not {q.id for q in dev} & set(gold)


# -- the published files -----------------------------------------------------------------------

# What the folder of published copies holds: rows a file, and of these what cannot be asked.
COUNTS: dict[str, tuple[int, dict[str, int]]] = {
    "pubmedqa": (500, {}),
    "pubmedqa-reasoning-free": (500, {}),
    "medqa-us": (1273, {}),
    "medmcqa-a": (2078, {}),
    "headqa-dev": (1366, {"needs_image": 30}),
    "bioasq-yesno": (1497, {"kind_qa": 1088}),
    "medqa-mcmle-a": (1732, {}),
    "cmexam-a": (1039, {"several_right_answers": 38}),
    "cmb-a": (977, {}),
    "mmlu-anatomy": (135, {}),
    "mmlu-college_medicine": (173, {}),
    "mmlu-professional_medicine": (272, {}),
    "mmlu-human_sexuality": (135, {}),
    "mmlu-high_school_world_history": (237, {}),
    "mmlu-elementary_mathematics": (378, {}),
    "mmlu-sociology": (201, {}),
    "mmlu-computer_security": (100, {}),
    "cmmlu-clinical_knowledge": (237, {}),
    "cmmlu-anatomy": (148, {}),
    "cmmlu-college_medicine": (273, {}),
    "cmmlu-nutrition": (145, {}),
}
SHOWN = {
    "pubmedqa": 450, "medqa-us": 1030, "headqa-dev": 2589, "cmexam-a": 6600, "mmlu-anatomy": 5,
    "cmmlu-nutrition": 5,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", list(COUNTS))
def test_every_published_item_is_asked_or_counted(name: str, real_data: Path) -> None:
    task = task_named(name)
    asked = task.load(real_data, "test")
    left_out = task.left_out(real_data, "test") if task.left_out else {}
    rows, expected = COUNTS[name]
    assert left_out == expected
    assert len(asked) == rows - sum(expected.values())
    assert len({question.id for question in asked}) == len(asked)
    for question in asked:
        assert question.answer in question.choices
        assert len(set(question.choices)) == len(question.choices) >= 2
        assert all(text.strip() for text in (question.question, *question.choices))
        assert bool(question.long_answer) == (name == "pubmedqa-reasoning-free")
    assert {question.lang for question in asked} == {
        "zh" if name.startswith(("cm", "medqa-mcmle")) else "en"
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", list(COUNTS))
def test_an_audit_and_a_task_mean_the_same_items(name: str, real_data: Path) -> None:
    entry = BENCHMARKS[task_named(name).kept_out_as]
    items = {item.id for item in BENCHMARK_READERS[entry.reader](locate(entry, real_data))}
    asked = [question.id for question in task_named(name).load(real_data, "test")]
    assert len({item_of(identity, items) for identity in asked} & items) == len(asked)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SHOWN))
def test_what_may_be_shown_is_never_asked(name: str, real_data: Path) -> None:
    task = task_named(name)
    assert task.examples is not None
    shown = task.examples(real_data)
    assert len(shown) == SHOWN[name]
    assert not {q.id for q in shown} & {q.id for q in task.load(real_data, "test")}


@pytest.mark.slow
def test_every_task_of_the_folder_is_counted_above(real_data: Path) -> None:
    for name, task in TASKS.items():
        if name in COUNTS or name == "trialgen":
            continue
        with pytest.raises(UserError, match=r"file not found|has no file"):
            task.load(real_data, "test")


def test_a_group_tells_which_of_its_tasks_are_there(tmp_path: Path) -> None:
    require_files(["trialgen"], tmp_path, "test")
    for subject in ("anatomy", "virology"):
        (tmp_path / f"{subject}_test.csv").write_text("Which?,a,b,c,d,A\n")
    with pytest.raises(UserError) as caught:
        require_files(["trialgen", "mmlu-medical"], tmp_path, "test")
    told = str(caught.value)
    assert "8 of the 10 tasks of mmlu-medical have no file here: mmlu-clinical_knowledge, " in told
    assert "there: --tasks mmlu-anatomy,mmlu-virology;" in told
    assert f"`medexpert data fetch mmlu-medical --to {tmp_path}`" in told
    require_files(["mmlu-anatomy", "mmlu-virology"], tmp_path, "test")
    with pytest.raises(UserError, match=r"10 of the 10 tasks of cmmlu-medical .*; none is there"):
        require_files(["cmmlu-medical"], tmp_path / "none", "test")


def test_a_task_without_its_files_tells_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("pubmedqa", "pubmedqa-reasoning-free", "medqa-us"):
        entry = name.removesuffix("-reasoning-free")
        with pytest.raises(UserError) as caught:
            require_files([name], Path(), "test")
        told = str(caught.value)
        assert "--data with the folder that holds the files" in told
        assert f"`medexpert data fetch {entry} --to data` and then --data data" in told
        assert "\n" not in told
