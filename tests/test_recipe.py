"""Recipes: every mistake at once, each with its place; values survive the format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from medexpert.recipe import Run, load, section_of
from medexpert.records import UserError

ROOT = Path(__file__).resolve().parents[1]
GOOD = """name = "mine"
[data]
quarantine = ["pubmedqa"]
[[data.knowledge]]
source = "starter-passages-en"
[[data.knowledge]]
source = "starter-general-en"
role = "replay"
[adapt]
learning_rate = 5e-5
[evaluate]
task = "trialgen"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text, "utf-8")
    return path


def problems(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        load(path, overrides)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").rglob("*.toml")), ids=str)
def test_every_shipped_recipe_is_valid(path: Path) -> None:
    recipe = load(path)
    assert recipe.stages()
    assert len(recipe.hash()) == 16


def test_numbers_and_stage_defaults_survive(tmp_path: Path) -> None:
    recipe = load(write(tmp_path, GOOD))
    assert recipe.adapt.learning_rate == 5e-5
    assert recipe.adapt.method == "lora"  # the adapt default, kept though [adapt] is given
    assert recipe.knowledge.method == "full"
    assert recipe.folder() == Path("runs/mine")


def test_a_label_stays_a_string(tmp_path: Path) -> None:
    recipe = load(write(tmp_path, GOOD.replace('"mine"', '"yes"')))
    assert recipe.name == "yes"


def test_three_mistakes_are_told_at_once_with_line_and_nearest_name(tmp_path: Path) -> None:
    text = GOOD + '[knowledge]\nlearning_rat = 1e-4\nschedule = "cosin"\nepochs = 0\n'
    path = write(tmp_path, text)
    lines = problems(path)
    assert len(lines) == 3
    by_key = {line.split(": ", 1)[1]: line for line in lines}
    joined = "\n".join(by_key)
    assert f"{path}:14: " in str(lines)
    assert "unknown key knowledge.learning_rat" in joined
    assert "did you mean 'learning_rate'?" in joined
    assert "did you mean 'cosine'?" in joined
    assert "knowledge.epochs = 0" in joined
    assert any(line.startswith(f"{path}:16: ") for line in lines)


def test_a_mistake_in_the_second_source_names_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace('role = "replay"', 'role = "reply"'))
    (line,) = problems(path)
    assert line.startswith(f"{path}:8: data.knowledge.1.role = 'reply'")
    assert "did you mean 'replay'?" in line


def test_wrong_type_out_of_range_and_missing_key(tmp_path: Path) -> None:
    path = write(tmp_path, '[data]\nreplay_share = 2\n[adapt.lora]\nrank = "many"\n')
    lines = "\n".join(problems(path))
    assert "key name is required" in lines
    assert "data.replay_share = 2: input should be less than or equal to 1" in lines
    assert "adapt.lora.rank = 'many'" in lines


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('enabled = "no"', "knowledge.enabled = 'no': input should be a valid boolean"),
        ('learning_rate = "1e-4"', "knowledge.learning_rate = '1e-4': input should be a valid num"),
        ("epochs = inf", "knowledge.epochs = inf: input should be a finite number"),
        ("clip = nan", "knowledge.clip = nan: input should be a finite number"),
        ("betas = [0.9, 1.0]", "knowledge.betas.1 = 1.0: input should be less than 1"),
        ("rows_per_step = true", "knowledge.rows_per_step = True: input should be a valid integer"),
    ],
)
def test_a_value_of_another_type_is_never_turned_into_one(
    tmp_path: Path, line: str, message: str
) -> None:
    path = write(tmp_path, f"{GOOD}[knowledge]\n{line}\n")
    (problem,) = problems(path)
    assert problem.startswith(f"{path}:14: {message}")


def test_overrides_win_and_are_checked(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    recipe = load(path, ["adapt.learning_rate=1e-4", "evaluate.limit=7", "output=there"])
    assert (recipe.adapt.learning_rate, recipe.evaluate.limit) == (1e-4, 7)
    assert recipe.output == "there"
    (problem,) = problems(path, "adapt.learnin_rate=1")
    assert problem.startswith("--set: unknown key adapt.learnin_rate")
    (problem,) = problems(path, "adapt.betas=[0.9, 2]")
    assert problem.startswith("--set: adapt.betas.1 = 2")
    assert "is not section.key=value" in problems(path, "nonsense")[0]
    assert "name is not a section" in problems(path, "name.x=1")[0]


def test_the_hash_follows_the_resolved_settings(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    assert load(path).hash() == load(path, ["adapt.learning_rate=0.00005"]).hash()
    assert load(path).hash() != load(path, ["seed=3"]).hash()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'name = "x', "mine.toml:1: not valid TOML"),
        (b'name = "\xff"', "not UTF-8"),
        (b"", "key name is required"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    assert message in problems(path)[0]


def test_a_missing_recipe_names_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    assert "did you mean 'mine.toml'?" in problems(tmp_path / "mime.toml")[0]


def test_a_folder_with_one_recipe_is_that_recipe(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    assert load(tmp_path).name == "mine"
    (tmp_path / "other.toml").write_text(GOOD)
    assert "a recipe file is expected; allowed:" in problems(tmp_path)[0]


def test_a_merge_that_is_no_task_is_told_before_training(tmp_path: Path) -> None:
    lines = ['adapt.method="cpoly"', 'adapt.cpoly.tasks.a=["chat.*"]', 'adapt.cpoly.merge="b"']
    (problem,) = problems(write(tmp_path, GOOD), *lines)
    assert "merge = 'b' is none of the tasks: a" in problem


def test_four_bits_on_several_processes_want_replication(tmp_path: Path) -> None:
    path, lines = write(tmp_path, GOOD), ["processes=2", 'adapt.method="qlora"']
    (problem,) = problems(path, *lines)
    assert "adapt.sharding: 4-bit weights cannot be sharded; allowed: replicate" in problem
    assert load(path, [*lines, 'adapt.sharding="replicate"']).adapt.method == "qlora"


def keys(model: type[BaseModel], before: str = "") -> Iterator[tuple[str, str | None]]:
    """(dotted key, meaning) of every value of a recipe."""
    for name, field in model.model_fields.items():
        section = section_of(field)
        if section is None:
            yield f"{before}{name}", field.description
        else:
            yield from keys(section, f"{before}{name}.")


def test_every_key_has_a_meaning_and_is_on_the_page_of_keys() -> None:
    page = (ROOT / "docs" / "recipe-keys.md").read_text("utf-8")
    found = dict(keys(Run))
    assert {"seed", "data.knowledge.source", "adapt.cpoly.norm", "ablation.axes"} <= set(found)
    assert not [key for key, meaning in found.items() if not meaning or set("|<") & set(meaning)]
    for key, meaning in found.items():
        name = key.rsplit(".", 1)[-1]
        assert f"| `{name}` | " in page, key
        assert f" | {meaning} |" in page, key


def test_a_wrong_value_is_told_with_what_the_key_means(tmp_path: Path) -> None:
    lines = problems(write(tmp_path, GOOD.replace('name = "mine"', "")), "adapt.betas=[0.9, 2]")
    assert any("key name is required (names the run" in line for line in lines)
    assert any("less than 1 (of AdamW's two averages)" in line for line in lines)
