"""C-Poly folders: save, open, one task merged, one task as a standard LoRA folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medexpert.manifest import write_manifest
from medexpert.model.adapters import tasks
from medexpert.model.adapters.cpoly import CPolyConfig, files
from medexpert.model.base import describe, fetch, load, parent_folder
from medexpert.model.checkpoint import export_task, save_adapter, save_model, verify_model
from medexpert.model.folder import is_adapter, model_digest, read_lineage
from medexpert.records import UserError

Make = Callable[..., Any]
TASKS = ("direct", "verify", "choice")


@pytest.fixture
def base(tmp_path: Path, tiny: Any, tokenizer: Any) -> Path:
    folder = tmp_path / "run" / "instruct" / "model"
    lineage = {"stage": "instruct", "licence": "Apache-2.0"}
    save_model(tiny.make_model(), tokenizer, folder, lineage=lineage, dtype=torch.float32)
    return folder


@pytest.fixture
def saved(base: Path, skilled: Make) -> Path:
    return save(skilled(), base)


def save(wrapped: Any, base: Path) -> Path:
    folder = base.parents[1] / "adapt" / "adapter"
    lineage = {
        "stage": "adapt", "parent": str(base), "parent_digest": model_digest(base), "seed": 3,
    }  # fmt: skip
    save_adapter(wrapped, folder, lineage=lineage)
    return folder


def of_task(wrapped: Any, task: Any, tiny: Any, tokens: Any) -> Any:
    with tasks(wrapped, task):
        return tiny.logits(wrapped, tokens)


VARIANTS: list[dict[str, Any]] = [
    {},
    {"common": 0, "private": 2},
    {"common": 2, "private": 0, "target_modules": r".*\.0\..*proj"},
    {"norm": "separate", "target_modules": ("q_proj", "layers.1.mlp.down_proj")},
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_merged_and_exported_equal_the_task(
    skilled: Make, base: Path, tiny: Any, tokens: Any, tmp_path: Path, changes: dict[str, Any]
) -> None:
    from peft import PeftModel

    wrapped = skilled(**changes)
    wanted = {task: of_task(wrapped, task, tiny, tokens) for task in TASKS}
    plain = tiny.logits(tiny.make_model(), tokens)
    assert all((logits - plain).abs().max() > 0.01 for logits in wanted.values())
    assert not torch.allclose(wanted["direct"], wanted["choice"], atol=1e-3)
    folder = save(wrapped, base)
    for task, logits in wanted.items():
        opened, _ = load(folder, dtype=torch.float32, task=task)
        torch.testing.assert_close(tiny.logits(opened, tokens), logits, rtol=0, atol=1e-5)
        to = tmp_path / "run" / "adapt" / f"lora-{task}"
        export_task(folder, task, to)
        lora = PeftModel.from_pretrained(tiny.make_model(), to).eval()
        torch.testing.assert_close(tiny.logits(lora, tokens), logits, rtol=0, atol=1e-5)
        ours, _ = load(to, dtype=torch.float32)
        torch.testing.assert_close(tiny.logits(ours, tokens), logits, rtol=0, atol=1e-5)
    merged = wrapped.unwrap("verify")
    assert not any("base_layer" in name for name, _ in merged.named_parameters())
    torch.testing.assert_close(tiny.logits(merged, tokens), wanted["verify"], rtol=0, atol=1e-5)


def test_an_exported_task_is_a_standard_lora_folder(saved: Path, base: Path) -> None:
    to = saved.parent / "lora-verify"
    entry = export_task(saved, "verify", to)
    config = json.loads((to / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (8, 8, 0.0)
    assert config["target_modules"] == sorted(config["target_modules"])
    assert set(config["target_modules"]) == {
        "q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "gate_proj", "down_proj",
    }  # fmt: skip
    assert set(entry["files"]) == {
        "adapter_config.json", "adapter_model.safetensors", "medexpert.json",
    }  # fmt: skip
    lineage = read_lineage(to)
    assert (lineage["task"], lineage["parent"], lineage["seed"]) == (
        "verify", "../../instruct/model", 3,
    )  # fmt: skip
    assert parent_folder(to) == base
    assert verify_model(to)
    far = saved.parents[3] / "elsewhere" / "x" / "lora"
    export_task(saved, "verify", far)
    assert read_lineage(far)["parent"] == str(base)
    with pytest.raises(UserError, match="unknown task 'verfy'"):
        export_task(saved, "verfy", saved.parent / "no")
    with pytest.raises(UserError, match="holds no C-Poly tasks to export"):
        export_task(base, "verify", saved.parent / "no")
    assert not (saved.parent / "no").exists()


def test_a_saved_folder_opens_to_the_bit(skilled: Make, base: Path, tiny: Any, tokens: Any) -> None:
    wrapped = skilled()
    wrapped.add_task("dialogue")
    folder = save(wrapped, base)
    again = files.read(tiny.make_model(), folder)
    assert again.cpoly == wrapped.cpoly == CPolyConfig.read(folder)
    one, two = files.tensors_of(wrapped), files.tensors_of(again)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    for task in range(4):
        assert torch.equal(of_task(again, task, tiny, tokens), of_task(wrapped, task, tiny, tokens))
    assert {p.name for p in folder.iterdir()} == {
        "cpoly_config.json", "cpoly_model.safetensors", "medexpert.json", "manifest.json",
    }  # fmt: skip
    assert model_digest(save(again, base)) == model_digest(folder)


def test_half_precision_is_kept(skilled: Make, base: Path, tiny: Any) -> None:
    from medexpert.model.base import cast_weights

    wrapped = skilled()
    cast_weights(wrapped, torch.bfloat16)
    again = files.read(tiny.make_model(), save(wrapped, base))
    one, two = files.tensors_of(wrapped), files.tensors_of(again)
    assert all(torch.equal(one[n], two[n]) and two[n].dtype == torch.bfloat16 for n in one)


def test_the_folder_is_described_and_needs_a_task(saved: Path, base: Path, skilled: Make) -> None:
    assert is_adapter(saved)
    found = describe(fetch(str(saved)))
    assert (found["kind"], found["rank"], found["tasks"]) == ("adapter", 2, list(TASKS))
    assert found["parameters"] == sum(p.numel() for p in skilled().parameters() if p.requires_grad)
    with pytest.raises(UserError, match="several tasks: name one; allowed: direct, verify, choice"):
        load(saved, dtype=torch.float32)
    with pytest.raises(UserError, match=r"unknown task 'verfy'.*did you mean 'verify'"):
        load(saved, dtype=torch.float32, task="verfy")
    with pytest.raises(UserError, match="holds no tasks, so none is called 'verify'"):
        load(base, dtype=torch.float32, task="verify")
    with pytest.raises(UserError, match="cannot be opened in 4 bits"):
        load(saved, dtype=torch.float32, four_bit=True)


def test_one_task_needs_no_name(skilled: Make, base: Path, tiny: Any, tokens: Any) -> None:
    wrapped = skilled(tasks=("only",))
    opened, tokenizer = load(save(wrapped, base), dtype=torch.bfloat16)
    assert opened.dtype == torch.bfloat16
    assert tokenizer.chat_template == tiny.TEMPLATE
    wanted = of_task(wrapped, "only", tiny, tokens)
    got = tiny.logits(opened, tokens).float()
    assert float((got - wanted).norm() / wanted.norm()) < 0.05


def test_save_model_does_not_take_a_cpoly_model(
    skilled: Make, tmp_path: Path, tokenizer: Any
) -> None:
    with pytest.raises(TypeError, match="takes a plain model"):
        save_model(skilled(), tokenizer, tmp_path / "m", lineage={}, dtype=torch.float32)


def resealed(folder: Path) -> None:
    listed = [p for p in folder.iterdir() if p.name != "manifest.json"]
    write_manifest(folder, key="k", files=listed, facts={})


def test_folders_that_do_not_fit_or_are_damaged(saved: Path, base: Path, tiny: Any) -> None:
    from safetensors.torch import load_file, save_file

    weights = saved / "cpoly_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"\x7f")
    with pytest.raises(UserError, match="SHA-256 differs"):
        load(saved, dtype=torch.float32, task="direct")
    weights.write_bytes(whole)
    tensors = load_file(weights)
    name = "model.layers.0.mlp.down_proj.common_a"
    for changed in (None, torch.zeros(3, 2, 5)):
        odd = {k: v for k, v in tensors.items() if k != name}
        save_file(odd if changed is None else {**odd, name: changed}, weights)
        resealed(saved)
        with pytest.raises(UserError, match=f"does not fit .*1 tensors differ, first {name}"):
            load(saved, dtype=torch.float32, task="direct")
    weights.unlink()
    resealed(saved)
    with pytest.raises(UserError, match=r"the adapter has no cpoly_model\.safetensors"):
        fetch(str(saved))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "none"}, "norm: Input should be 'joint' or 'separate'"),
        ({"format": 2}, "format: Input should be 1"),
        ({"extra": 1}, "extra: Extra inputs are not permitted"),
        ({"common": 0, "private": 0}, "there is no skill to learn"),
        ({"tasks": []}, "needs at least one task"),
        ({"target_modules": ["qproj"]}, "no module of the model matches 'qproj'"),
    ],
)
def test_a_configuration_that_is_wrong(saved: Path, change: dict[str, Any], message: str) -> None:
    path = saved / "cpoly_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    resealed(saved)
    with pytest.raises(UserError, match=message):
        load(saved, dtype=torch.float32, task="direct")


def test_a_merge_that_is_not_finite_is_an_error(skilled: Make) -> None:
    wrapped = skilled()
    with torch.no_grad():
        wrapped.layers()["model.layers.1.mlp.up_proj"].common_b.fill_(float("inf"))
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.up_proj has weights not finite"):
        wrapped.unwrap("direct")
