from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medexpert.model.base import cached, chat_format, describe, fetch, load
from medexpert.model.catalogue import BASES, DEFAULT
from medexpert.records import UserError


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_catalogue_is_consistent() -> None:
    assert DEFAULT in BASES
    for name, entry in BASES.items():
        assert name == entry.name == name.lower()
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", entry.hub)
        assert entry.licence
        assert bool(entry.wheels) == (entry.kind == "wheel")
        assert bool(entry.joined) == bool(entry.joined_sha256) == (len(entry.wheels) > 1)
        pins = [pin for wheel in entry.wheels for pin in (wheel.sha256, wheel.member_sha256)]
        pins += [entry.gguf_sha256] if entry.wheels else []
        assert all(re.fullmatch("[0-9a-f]{64}", pin) for pin in pins)
        assert not entry.terms or "https://" in entry.terms


def test_the_catalogue_is_light() -> None:
    code = "import sys, medexpert.model.base as b; b.BASES; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_unknown_name_lists_the_catalogue_and_the_nearest() -> None:
    line = r"unknown base model 'smollm2-135m'.*owner/name.*did you mean 'smollm2-135m-instruct'"
    with pytest.raises(UserError, match=line):
        fetch("smollm2-135m")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "runs/x/adapt/model", "m.gguf"])
def test_a_path_that_is_not_there(name: str) -> None:
    with pytest.raises(UserError, match=r"no such model folder or \.gguf file"):
        fetch(name)


def test_revision_and_wheel_copy_only_where_they_mean_something(hf: Path) -> None:
    with pytest.raises(UserError, match="revision 'main' is for hub models"):
        fetch(str(hf), revision="main")
    with pytest.raises(UserError, match="does not come as a wheel"):
        fetch(str(hf), local=hf)


def test_a_local_folder_is_returned_as_it_is(hf: Path) -> None:
    before = sorted(p.name for p in hf.iterdir())
    assert fetch(str(hf)) == hf
    assert sorted(p.name for p in hf.iterdir()) == before


def test_load_is_the_saved_model_in_eval_mode(tiny: Any, hf: Path, model: Any, tokens: Any) -> None:
    import torch

    opened, tokenizer = load(hf, dtype=torch.float32)
    assert torch.equal(tiny.logits(opened, tokens), tiny.logits(model, tokens))
    assert not opened.training
    assert opened.config._attn_implementation == "sdpa"
    assert opened.config.use_cache == model.config.use_cache
    assert chat_format(tokenizer) == (tiny.TEMPLATE, tiny.SPECIAL[1], tiny.SPECIAL[2])
    half, _ = load(hf, dtype=torch.bfloat16, device="cpu")
    assert half.dtype == torch.bfloat16


def test_cudnn_is_not_asked_for_attention(hf: Path) -> None:
    """On an H100 torch would ask it first, and it makes a plan for every length."""
    import torch

    torch.backends.cuda.enable_cudnn_sdp(True)
    load(hf, dtype=torch.float32)
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_load_says_nothing_on_the_terminal(hf: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import torch

    load(fetch(str(hf)), dtype=torch.float32)
    assert capfd.readouterr() == ("", "")


def test_chat_format_without_a_template_or_tokens() -> None:
    class Bare:
        chat_template = bos_token = eos_token = None

    class Named(Bare):
        chat_template = {"default": "d", "tool_use": "t"}  # noqa: RUF012

    assert chat_format(Bare()) == ("", "", "")  # type: ignore[arg-type]
    assert chat_format(Named())[0] == "d"  # type: ignore[arg-type]


def test_a_sharded_folder_opens_and_a_missing_shard_is_named(
    tiny: Any, sharded: Path, model: Any, tokens: Any
) -> None:
    import torch

    opened, _ = load(fetch(str(sharded)), dtype=torch.float32)
    assert torch.equal(tiny.logits(opened, tokens), tiny.logits(model, tokens))
    lost = sorted(sharded.glob("model-*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(UserError, match=f"shard {lost.name} is missing"):
        fetch(str(sharded))


def test_a_shard_outside_the_folder_is_refused(sharded: Path) -> None:
    rewrite(sharded / "model.safetensors.index.json", weight_map={"x": "../x.safetensors"})
    with pytest.raises(UserError, match="lies outside the folder"):
        fetch(str(sharded))


def test_a_truncated_shard_is_named(sharded: Path) -> None:
    shard = sorted(sharded.glob("model-*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(UserError, match=rf"{shard.name}: cut short or damaged"):
        fetch(str(sharded))
    shard.write_bytes(shard.read_bytes()[:20])
    with pytest.raises(UserError, match=rf"{shard.name}: not a readable safetensors file"):
        fetch(str(sharded))


def test_pickles_are_refused_with_the_reason(hf: Path) -> None:
    (hf / "model.safetensors").rename(hf / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"refused: its weights are pickles \(pytorch_model\.bin\)"):
        fetch(str(hf))
    with pytest.raises(UserError, match="refused: a pickle can run any code"):
        fetch(str(hf / "pytorch_model.bin"))


def test_a_file_of_another_kind(hf: Path) -> None:
    with pytest.raises(UserError, match=r"a model folder or a \.gguf file is expected"):
        fetch(str(hf / "model.safetensors"))


def test_code_that_comes_with_a_model_is_refused(hf: Path) -> None:
    code = {"AutoConfig": "configuration_x.XConfig", "AutoModelForCausalLM": "modeling_x.XModel"}
    rewrite(hf / "config.json", model_type="chatglm", auto_map=code)
    with pytest.raises(UserError, match=r"code of its own \(configuration_x\.py, modeling_x\.py\)"):
        fetch(str(hf))


def test_code_beside_a_known_architecture_is_ignored(
    tiny: Any, hf: Path, model: Any, tokens: Any
) -> None:
    import torch

    (hf / "modeling_x.py").write_text("raise SystemExit('ran')")
    rewrite(hf / "config.json", auto_map={"AutoModelForCausalLM": "modeling_x.XModel"})
    opened, _ = load(fetch(str(hf)), dtype=torch.float32)
    assert torch.equal(tiny.logits(opened, tokens), tiny.logits(model, tokens))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["BertForMaskedLM"], "model_type": "bert"}, "not a causal"),
        ({"architectures": ["NoSuchModel"], "model_type": "nosuch"}, "NoSuchModel is not a causal"),
        ({"quantization_config": {"quant_method": "gptq"}}, r"weights are quantised \(gptq\)"),
        ({"model_type": None}, "it has no model_type"),
    ],
)
def test_configurations_that_cannot_be_opened(hf: Path, changes: Any, message: str) -> None:
    rewrite(hf / "config.json", **changes)
    with pytest.raises(UserError, match=message):
        fetch(str(hf))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "it has no config.json"),
        ("tokenizer.json", "it has no tokenizer"),
        ("model.safetensors", "it has no weights"),
    ],
)
def test_missing_files_are_named(hf: Path, name: str, message: str) -> None:
    (hf / name).unlink()
    with pytest.raises(UserError, match=message):
        fetch(str(hf))


def test_broken_config_names_the_line(hf: Path) -> None:
    (hf / "config.json").write_text('{"model_type": "llama",\n oops}')
    with pytest.raises(UserError, match=r"config\.json:2: not valid JSON"):
        fetch(str(hf))


def test_a_folder_with_a_gguf_inside(tmp_path: Path, hf: Path) -> None:
    (hf / "model.safetensors").rename(hf / "model.gguf")
    with pytest.raises(UserError, match=r"give the path of one \.gguf file"):
        fetch(str(hf))


def test_a_missing_tensor_is_an_error_not_random_numbers(hf: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(hf / "model.safetensors")
    gone = tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, hf / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 tensors are missing.*layers\.1\.mlp\.up_proj"):
        load(hf, dtype=torch.float32)
    tensors["model.layers.1.mlp.up_proj.weight"] = gone[:5].contiguous()
    save_file(tensors, hf / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"transformers cannot open this model|wrong shape"):
        load(hf, dtype=torch.float32)


def test_describe_reads_headers_only(hf: Path, sharded: Path, model: Any) -> None:
    found = describe(hf)
    assert found["parameters"] == sum(p.numel() for p in model.parameters())
    assert found["weight_bytes"] == (hf / "model.safetensors").stat().st_size
    wanted = {
        "kind": "model",
        "architecture": "LlamaForCausalLM",
        "layers": 2,
        "hidden": 64,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 16,
        "vocabulary": 260,
        "context_length": 128,
        "intermediate": 96,
        "tied": True,
        "stored_dtype": "F32",
        "lineage": {},
        "licence": "",
        "origin": {},
    }
    assert {key: found[key] for key in wanted} == wanted
    assert describe(sharded)["parameters"] == found["parameters"]


def test_describe_knows_the_licence_of_a_catalogued_hub_snapshot(tmp_path: Path, hf: Path) -> None:
    snapshot = tmp_path / "hub" / "models--Qwen--Qwen3-0.6B" / "snapshots" / ("a" * 40)
    snapshot.parent.mkdir(parents=True)
    hf.rename(snapshot)
    found = describe(snapshot)
    assert found["origin"] == {"hub": "Qwen/Qwen3-0.6B", "commit": "a" * 40}
    assert found["licence"] == "Apache-2.0"


@pytest.mark.parametrize("text", ['{"model": {"type": "XXX"}}', '{"model":', "{}"])
def test_a_broken_tokenizer_file_is_one_line(hf: Path, text: str) -> None:
    import torch

    (hf / "tokenizer.json").write_text(text)
    with pytest.raises(UserError, match="transformers cannot open this tokenizer: "):
        load(hf, dtype=torch.float32)


def test_two_models_have_two_digests(tiny: Any, hf: Path, tmp_path: Path) -> None:
    from medexpert.model.folder import model_digest

    before = model_digest(hf)
    (hf / "README.md").write_text("about it")
    assert model_digest(hf) == before
    config = hf / "tokenizer_config.json"
    config.write_text(config.read_text().replace("}", ' ,"note": 1}', 1))
    other_tokenizer = model_digest(hf)
    assert other_tokenizer != before
    tiny.make_model(seed=1).save_pretrained(hf)
    assert model_digest(hf) not in (before, other_tokenizer)


def test_describe_sizes_a_lora_adapter(hf: Path, model: Any) -> None:
    from medexpert.model.adapters.lora import add_lora
    from medexpert.recipe_train import Lora

    rank = 4
    wrapped = add_lora(model, Lora(rank=rank), seed=0)
    trained = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
    assert rank * describe(hf)["linear_in_plus_out"] == trained


def test_which_catalogue_entries_are_on_this_machine(
    tmp_path: Path, hf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    entry = BASES["qwen3-0.6b"]
    look = lambda *_: str(hf / "config.json")  # noqa: E731
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", look)
    assert cached(entry) == hf
    (hf / "model.safetensors").unlink()
    assert cached(entry) is None
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    assert cached(entry) is None
    assert cached(BASES[DEFAULT], tmp_path) is None
    folder = tmp_path / "models" / DEFAULT
    folder.mkdir(parents=True)
    (folder / "manifest.json").touch()
    assert cached(BASES[DEFAULT], tmp_path) == folder
