from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from medexpert.manifest import output_digest, read_manifest
from medexpert.model.adapters.lora import add_lora, merge_lora
from medexpert.model.base import cast_weights, chat_format, describe, fetch, load
from medexpert.model.checkpoint import link, save_adapter, save_model, verify_model
from medexpert.model.folder import model_digest, read_lineage
from medexpert.recipe_train import Lora
from medexpert.records import UserError

LINEAGE = {
    "stage": "knowledge",
    "parent": "smollm2-135m-instruct",
    "recipe_hash": "r",
    "steps": 3,
    "tokens": 99,
    "data_digest": "d",
    "parent_digest": "p",
    "licence": "Apache-2.0",
}


@pytest.fixture
def saved(tmp_path: Path, model: Any, tokenizer: Any) -> Path:
    import torch

    folder = tmp_path / "run" / "knowledge" / "model"
    save_model(model, tokenizer, folder, lineage=LINEAGE, dtype=torch.float32)
    return folder


@pytest.fixture
def trained(model: Any) -> Any:
    """A LoRA model whose adapter does something."""
    import torch

    wrapped = add_lora(model, Lora(rank=4, alpha=8), seed=1)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(5)
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return wrapped.eval()


@pytest.fixture
def adapter(saved: Path, trained: Any) -> Path:
    folder = saved.parents[1] / "adapt" / "adapter"
    lineage = {"stage": "adapt", "parent": str(saved), "parent_digest": model_digest(saved)}
    save_adapter(trained, folder, lineage=lineage)
    return folder


def test_a_saved_model_opens_as_it_was(tiny: Any, saved: Path, model: Any, tokens: Any) -> None:
    import torch

    opened, tokenizer = load(fetch(str(saved)), dtype=torch.float32)
    assert torch.equal(tiny.logits(opened, tokens), tiny.logits(model, tokens))
    assert chat_format(tokenizer)[0] == tiny.TEMPLATE
    assert read_lineage(saved) == {**LINEAGE, "versions": read_lineage(saved)["versions"]}
    assert read_lineage(saved)["versions"]["torch"]
    listed = set(verify_model(saved)["files"])
    assert {"model.safetensors", "config.json", "tokenizer.json", "medexpert.json"} <= listed
    assert listed == {p.name for p in saved.iterdir()} - {"manifest.json"}
    assert [p.name for p in saved.parent.iterdir()] == ["model"]


def test_saving_in_half_precision_keeps_the_model_in_memory_and_the_tie(
    tiny: Any, tmp_path: Path, model: Any, tokenizer: Any, tokens: Any
) -> None:
    import torch

    before = tiny.logits(model, tokens)
    folder = tmp_path / "m"
    save_model(model, tokenizer, folder, lineage=LINEAGE, dtype=torch.bfloat16)
    assert model.dtype == torch.float32
    assert torch.equal(tiny.logits(model, tokens), before)
    found = describe(folder)
    assert found["stored_dtype"] == "BF16"
    assert found["parameters"] == sum(p.numel() for p in model.parameters())
    assert found["licence"] == "Apache-2.0"
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    opened, _ = load(folder, dtype=torch.bfloat16)
    cast_weights(model, torch.bfloat16)
    assert torch.equal(tiny.logits(opened, tokens), tiny.logits(model, tokens))


def test_an_untied_output_layer_is_kept(
    tiny: Any, tmp_path: Path, tokenizer: Any, tokens: Any
) -> None:
    import torch

    model = tiny.make_model(tie_word_embeddings=False)
    save_model(model, tokenizer, tmp_path / "m", lineage=LINEAGE, dtype=torch.float32)
    opened, _ = load(tmp_path / "m", dtype=torch.float32)
    assert torch.equal(tiny.logits(opened, tokens), tiny.logits(model, tokens))


def test_equal_models_have_equal_digests(tmp_path: Path, model: Any, tokenizer: Any) -> None:
    import torch

    for name in ("a", "b"):
        folder = tmp_path / name
        save_model(model, tokenizer, folder, lineage=LINEAGE, dtype=torch.float32, key=name)
    assert output_digest(tmp_path / "a") == output_digest(tmp_path / "b")
    assert read_manifest(tmp_path / "a")["key"] == "a"


def test_a_full_disk_keeps_the_old_model_and_nothing_half_written(
    tmp_path: Path, saved: Path, model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    before = output_digest(saved)

    def full(folder: Path, **_: Any) -> None:
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(model, "save_pretrained", full)
    for folder in (saved, tmp_path / "new" / "model"):
        with pytest.raises(UserError, match=r"the disk is full .*nothing half-written is kept"):
            save_model(model, tokenizer, folder, lineage=LINEAGE, dtype=torch.float32)
    assert verify_model(saved)
    assert output_digest(saved) == before
    assert list((tmp_path / "new").iterdir()) == []
    assert [p.name for p in saved.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_changed_file_is_found(saved: Path, name: str) -> None:
    import torch

    data = bytearray((saved / name).read_bytes())
    data[-3] ^= 1
    (saved / name).write_bytes(bytes(data))
    for use in (verify_model, lambda f: fetch(str(f)), lambda f: load(f, dtype=torch.float32)):
        with pytest.raises(UserError, match=f"{name}: its SHA-256 differs"):
            use(saved)


def test_an_unfinished_folder_is_refused(saved: Path) -> None:
    (saved / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"not a finished folder: it has no manifest\.json"):
        fetch(str(saved))


def test_save_model_does_not_take_a_wrapped_model(
    tmp_path: Path, trained: Any, tokenizer: Any
) -> None:
    import torch

    with pytest.raises(TypeError, match="call merge_lora, or use save_adapter"):
        save_model(trained, tokenizer, tmp_path / "m", lineage=LINEAGE, dtype=torch.float32)


def test_an_adapter_folder_opens_merged_into_its_base(
    tiny: Any, adapter: Path, trained: Any, tokens: Any
) -> None:
    import torch

    wanted = tiny.logits(trained, tokens)
    opened, tokenizer = load(fetch(str(adapter)), dtype=torch.float32)
    assert not hasattr(opened, "peft_config")
    torch.testing.assert_close(tiny.logits(opened, tokens), wanted, rtol=0, atol=1e-5)
    assert chat_format(tokenizer)[0] == tiny.TEMPLATE
    names = {p.name for p in adapter.iterdir()}
    assert "adapter_model.safetensors" in names
    assert not any(name.endswith((".bin", ".md")) for name in names)
    found = describe(adapter)
    assert (found["kind"], found["rank"]) == ("adapter", 4)
    assert found["base"] == "../../knowledge/model"
    assert found["parameters"] == sum(p.numel() for p in trained.parameters() if p.requires_grad)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_the_merged_folder_equals_the_adapter_folder(
    tiny: Any, adapter: Path, trained: Any, tokenizer: Any, tokens: Any, tmp_path: Path, kind: str
) -> None:
    import torch

    dtype = getattr(torch, kind)

    opened, _ = load(adapter, dtype=dtype)
    save_model(merge_lora(trained), tokenizer, tmp_path / "m", lineage=LINEAGE, dtype=dtype)
    merged, _ = load(tmp_path / "m", dtype=dtype)
    assert opened.dtype == merged.dtype == dtype
    assert torch.equal(tiny.logits(opened, tokens), tiny.logits(merged, tokens))


def test_a_run_folder_can_be_moved(tiny: Any, adapter: Path, tmp_path: Path, tokens: Any) -> None:
    import torch

    before = tiny.logits(load(adapter, dtype=torch.float32)[0], tokens)
    (tmp_path / "run").rename(tmp_path / "moved")
    opened, _ = load(tmp_path / "moved" / "adapt" / "adapter", dtype=torch.float32)
    assert torch.equal(tiny.logits(opened, tokens), before)


def test_link_is_absolute_outside_the_run(tmp_path: Path) -> None:
    base = tmp_path / "cache" / "models" / "b"
    assert link(base, tmp_path / "runs" / "r" / "adapt" / "adapter") == str(base)


def test_an_adapter_whose_base_is_gone_or_another(
    tiny: Any, adapter: Path, saved: Path, tokenizer: Any
) -> None:
    import torch

    save_model(tiny.make_model(seed=9), tokenizer, saved, lineage=LINEAGE, dtype=torch.float32)
    with pytest.raises(UserError, match="was trained on another model than"):
        load(adapter, dtype=torch.float32)
    shutil.rmtree(saved)
    with pytest.raises(UserError, match="base model is not there any more"):
        fetch(str(adapter))


def test_an_adapter_without_lineage(adapter: Path) -> None:
    (adapter / "medexpert.json").unlink()
    (adapter / "manifest.json").unlink()
    told = "does not say which base model it belongs to; allowed: .* merged into its base first"
    with pytest.raises(UserError, match=told):
        fetch(str(adapter))


def test_an_adapter_of_pickles_or_of_another_kind(adapter: Path) -> None:
    for name in ("manifest.json", "medexpert.json"):
        (adapter / name).unlink()
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(UserError, match=r"refused: its weights are pickles \(adapter_model\.bin\)"):
        fetch(str(adapter))
    (adapter / "adapter_model.bin").unlink()
    with pytest.raises(UserError, match=r"the adapter has no adapter_model\.safetensors"):
        fetch(str(adapter))
    (adapter / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    with pytest.raises(UserError, match="adapter type 'IA3' cannot be opened; allowed: LORA"):
        fetch(str(adapter))


def test_an_adapter_that_does_not_fit(
    tiny: Any, adapter: Path, tmp_path: Path, tokenizer: Any
) -> None:
    import torch

    other = tmp_path / "other"
    model = tiny.make_model(hidden_size=32)
    save_model(model, tokenizer, other, lineage=LINEAGE, dtype=torch.float32)
    from medexpert.manifest import write_manifest

    (adapter / "medexpert.json").write_text(json.dumps({"parent": str(other)}))
    files = [p for p in adapter.iterdir() if p.name != "manifest.json"]
    write_manifest(adapter, key="k", files=files, facts={})
    with pytest.raises(UserError, match="the adapter does not fit its base model"):
        load(adapter, dtype=torch.float32)


def test_an_adapter_with_a_tensor_missing(adapter: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    from medexpert.manifest import write_manifest

    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, adapter / "adapter_model.safetensors")
    files = [p for p in adapter.iterdir() if p.name != "manifest.json"]
    write_manifest(adapter, key="k", files=files, facts={})
    with pytest.raises(UserError, match="1 tensors differ, first base_model"):
        load(adapter, dtype=torch.float32)


def test_save_adapter_needs_a_parent(tmp_path: Path, trained: Any) -> None:
    with pytest.raises(ValueError, match="lineage needs 'parent'"):
        save_adapter(trained, tmp_path / "a", lineage={})
