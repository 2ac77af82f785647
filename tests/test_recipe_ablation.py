from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.ablation_verb import expand
from medexpert.recipe import load
from medexpert.recipe_ablation import Ablation, applied
from medexpert.records import UserError

ROOT = Path(__file__).resolve().parents[1]
BASE = """name = "mine"
[[data.knowledge]]
source = "starter-passages-en"
[evaluate]
task = "trialgen"
"""
AXES = """[ablation]
seeds = [3, 4]
design = "{design}"
[ablation.axes.stages]
all = {{}}
none = {{ "knowledge.enabled" = false, "instruct.enabled" = false }}
[ablation.axes.adapter]
lora = {{}}
dora = {{ "adapt.method" = "dora" }}
full = {{ "adapt.method" = "full" }}
"""


def recipe(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(BASE + text)
    return path


def test_a_grid_is_every_combination_the_reference_first(tmp_path: Path) -> None:
    made = load(recipe(tmp_path, AXES.format(design="grid")))
    variants = expand(made)
    names = list(dict.fromkeys(v.name for v in variants))
    assert names == ["all+lora", "all+dora", "all+full", "none+lora", "none+dora", "none+full"]
    assert len(variants) == 12
    last = variants[-1]
    assert (last.seed, last.recipe.seed) == (4, 4)
    assert last.recipe.adapt.method == "full"
    assert last.recipe.stages() == ("adapt",)
    assert last.root == Path("runs/mine/ablation/none+full/seed-4")
    assert last.recipe.ablation == Ablation()
    assert len({v.root for v in variants}) == len({v.recipe.hash() for v in variants}) == 12


def test_one_change_at_a_time(tmp_path: Path) -> None:
    made = load(recipe(tmp_path, AXES.format(design="each")))
    assert list(made.ablation.variants()) == ["all+lora", "none+lora", "all+dora", "all+full"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[ablation.axes.a]\nx = { "adapt.metod" = "lora" }', r"unknown key adapt.metod; did you "),
        ('[ablation.axes.a]\nx = { "adapt.method" = "loro" }', "adapt.method = 'loro'"),
        ('[ablation.axes.a]\nx = { "name.b" = 1 }', "name.b is set by the ablation itself"),
        ('[ablation.axes.a]\nx = { "threads.b" = 1 }', "threads is not a section"),
        ("[ablation.axes.a]", "ablation.axes.a: an axis needs a value"),
        (
            '[ablation.axes.a]\nx = { "threads" = 1 }\n[ablation.axes.b]\ny = { "threads" = 2 }',
            "ablation.axes.b: threads is changed by axis a too",
        ),
        (
            '[ablation.axes.a]\nx = { "adapt.method" = "dora" }\n'
            '[ablation.axes.b]\ny = { "adapt" = { epochs = 2 } }',
            "ablation.axes.b: adapt is changed by axis a too",
        ),
        ("[ablation]\nseeds = [1, 1]", "a seed is given twice"),
        (
            "[ablation]\nseeds = [1, 2]\nmost = 1\n[ablation.axes.a]\nx = {}",
            "ablation.most: 2 runs, and at most 1 are allowed",
        ),
        ("[ablation]\naxis = 1", "unknown key ablation.axis.*did you mean 'axes'"),
        ('[ablation.axes.a]\n"x/y" = {}', "should match pattern"),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError, match=rf"mine\.toml:\d+: .*{told}"):
        load(recipe(tmp_path, text))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.sampled_from(["grid", "each"]))
def test_as_many_variants_as_the_design_says(sizes: list[int], design: str) -> None:
    axes = {f"a{k}": {f"v{k}{i}": {} for i in range(n)} for k, n in enumerate(sizes)}
    made = Ablation.model_validate({"axes": axes, "design": design})
    product = 1
    for n in sizes:
        product *= n
    assert len(made.variants()) == (product if design == "grid" else 1 + sum(sizes) - len(sizes))


def test_overrides_change_a_copy() -> None:
    values = {"a": {"b": 1}, "c": 2}
    assert applied(values, {"a.b": 3, "d.e": 4}) == {"a": {"b": 3}, "c": 2, "d": {"e": 4}}
    assert values == {"a": {"b": 1}, "c": 2}


def test_the_example_recipe_plans_shared_stages() -> None:
    from medexpert.ablation_verb import planned

    variants = expand(load(ROOT / "recipes" / "ablation" / "demo.toml"))
    assert len(variants) == 12
    told = planned(variants)

    # Prompting changes no training; another adapter shares the two stages before it.
    def state(variant: str, step: str) -> str:
        found = [line for line in told.splitlines() if line.startswith(f"{variant} seed 1 ")]
        (line,) = [x for x in found if f"  {step} " in x]
        return line.split("  ")[-1].strip()

    reference = "all+lora+balanced+direct"
    assert state("all+lora+balanced+voc", "adapt") == f"as in {reference} seed 1"
    assert state("all+dora+balanced+direct", "instruct") == f"as in {reference} seed 1"
    assert state("all+dora+balanced+direct", "adapt") == "to run"
    assert state("no-knowledge+lora+balanced+direct", "instruct") == "to run"
