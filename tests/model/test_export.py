"""A model folder as GGUF, read back by transformers' own reader."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from medexpert.model.base import chat_format, fetch, load
from medexpert.model.export import convert_with, export
from medexpert.model.gguf_checking import TEXTS, TOLERANCE, check_gguf
from medexpert.model.gguf_writing import interleaved, splitting
from medexpert.records import UserError

REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def written(folder: Path, model: Any, tokenizer: Any) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def qwen(kind: str, size: int) -> Any:
    """A tiny random Qwen2 (biases on q, k, v) or Qwen3 (norms on q and k, heads of 128, which is
    what transformers' GGUF reader takes every Qwen3 for)."""
    import torch
    import transformers

    library: Any = transformers
    config = getattr(library, f"{kind}Config")(
        vocab_size=size, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
        tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = getattr(library, f"{kind}ForCausalLM")(config).eval()
        for name, parameter in model.named_parameters():
            mean = 1.0 if "norm" in name else 0.0
            torch.nn.init.normal_(parameter, mean=mean, std=0.2)
    return model


def as_f16(model: Any) -> Any:
    """The same model with its matrices rounded to float16, as the file holds them."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(parameter.half().float())
    return model


@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Qwen3"])
def test_the_file_is_the_model_rounded_to_float16(
    tiny: Any, tmp_path: Path, tokenizer: Any, tokens: Any, kind: str
) -> None:
    import torch

    model = tiny.make_model(tie_word_embeddings=False)
    if kind != "Llama":
        model = qwen(kind, len(tokenizer))
        _split_by(tokenizer.backend_tokenizer, REGEX % "", "NFC")
    folder = written(tmp_path / "hf", model, tokenizer)
    facts = export(folder, tmp_path / "out.gguf")
    assert facts["total_variation"] < TOLERANCE["f16"]
    opened, _ = load(fetch(str(tmp_path / "out.gguf")), dtype=torch.float32)
    wanted = tiny.logits(as_f16(model), tokens)
    torch.testing.assert_close(tiny.logits(opened, tokens), wanted, rtol=1e-5, atol=1e-5)


def test_words_template_and_special_tokens_are_kept(tiny: Any, hf: Path, tmp_path: Path) -> None:
    import torch

    export(hf, tmp_path / "out.gguf", check=False)
    _, own = load(hf, dtype=torch.float32)
    _, its = load(fetch(str(tmp_path / "out.gguf")), dtype=torch.float32)
    assert chat_format(its) == chat_format(own) == (tiny.TEMPLATE, *tiny.SPECIAL[1:])
    for text in (*TEXTS, "<|im_start|>user\n\n\nso?<|im_end|>"):
        assert its(text).input_ids == own(text).input_ids
    assert its.unk_token == own.unk_token
    assert its.pad_token == own.pad_token


def test_a_start_token_that_is_put_before_texts_is_kept(tmp_path: Path, model: Any) -> None:
    import gguf
    from tokenizers import processors

    from medexpert.model.text import start_tokens

    tokenizer = _with_bos()
    assert start_tokens(tokenizer) == [1]
    export(written(tmp_path / "hf", model, tokenizer), tmp_path / "out.gguf", check=False)
    field = gguf.GGUFReader(tmp_path / "out.gguf").get_field("tokenizer.ggml.add_bos_token")
    assert field is not None
    assert field.contents() is True
    other = _with_bos()
    other.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_end|> $A", special_tokens=[("<|im_end|>", 2)]
    )
    with pytest.raises(UserError, match="begins every text with"):
        export(written(tmp_path / "eos", model, other), tmp_path / "eos.gguf")


def test_eight_bits(tmp_path: Path, hf: Path) -> None:
    import gguf

    facts = export(hf, tmp_path / "out.gguf", kind="q8_0")
    assert 0 < facts["total_variation"] < TOLERANCE["q8_0"]
    types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    assert types["blk.0.attn_q.weight"] == "Q8_0"
    assert types["blk.0.attn_norm.weight"] == "F32"


def test_an_adapter_is_merged(tiny: Any, tmp_path: Path, hf: Path, tokens: Any) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    from medexpert.model.checkpoint import save_adapter

    base, _ = load(hf, dtype=torch.float32)
    before = tiny.logits(base, tokens)
    wrapped: Any = get_peft_model(
        base, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    )
    adapter = tmp_path / "run" / "adapt" / "adapter"
    save_adapter(wrapped, adapter, lineage={"parent": str(hf)})
    export(adapter, tmp_path / "out.gguf")
    merged, _ = load(adapter, dtype=torch.float32)
    opened, _ = load(fetch(str(tmp_path / "out.gguf")), dtype=torch.float32)
    wanted = tiny.logits(as_f16(merged), tokens)
    torch.testing.assert_close(tiny.logits(opened, tokens), wanted, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(before, wanted, atol=0.1)
    export(adapter, tmp_path / "whole", to="hf")
    plain, _ = load(tmp_path / "whole", dtype=torch.float32)
    torch.testing.assert_close(tiny.logits(as_f16(plain), tokens), wanted, rtol=1e-5, atol=1e-5)


def test_rotary_rows_are_paired_as_the_reader_parts_them() -> None:
    import numpy as np

    rows = np.arange(8.0).reshape(8, 1)
    assert interleaved(rows, 2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert interleaved(rows.ravel(), 1).tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


@pytest.mark.parametrize(
    ("regex", "normalizer", "name"),
    [
        (REGEX % "{1,3}", None, "llama-bpe"),
        (REGEX % "", None, "qwen2"),
        (REGEX % "", "NFC", "qwen2"),
    ],
)
def test_splittings_are_told_by_their_rule(regex: str, normalizer: Any, name: str) -> None:
    from tokenizers import Tokenizer, models

    inner = Tokenizer(models.BPE())
    _split_by(inner, regex, normalizer)
    assert splitting(json.loads(inner.to_str()), "x") == name


def test_a_splitting_that_is_not_known_is_refused(tmp_path: Path, model: Any) -> None:
    from tokenizers import pre_tokenizers

    tokenizer = _with_bos()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = written(tmp_path / "hf", model, tokenizer)
    with pytest.raises(UserError, match=r"splits text in a way not known .*Whitespace.*smollm"):
        export(folder, tmp_path / "out.gguf")
    assert not list(tmp_path.glob("*.gguf"))
    assert not list(tmp_path.glob(".*.gguf"))


def _edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gemma", "architectures": ["GemmaForCausalLM"]},
         r"'gemma' is not written here; allowed: llama, qwen2, qwen3; any other with --llama-cpp"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
         "rotary scaling 'linear'"),
        ({"hidden_act": "gelu"}, "activation 'gelu'"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_one_line(
    hf: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    _edit(hf, **changes)
    with pytest.raises(UserError, match=message):
        export(hf, tmp_path / "out.gguf")


def test_a_tensor_without_a_place_is_named(tiny: Any, tmp_path: Path, tokenizer: Any) -> None:
    folder = written(tmp_path / "hf", tiny.make_model(mlp_bias=True), tokenizer)
    with pytest.raises(UserError, match=r"mlp\.down_proj\.bias has no place"):
        export(folder, tmp_path / "out.gguf")


def test_a_prefix_model_is_refused(tmp_path: Path, model: Any, tokenizer: Any) -> None:
    import torch

    from medexpert.model.checkpoint import save_model

    folder = tmp_path / "run" / "instruct" / "model"
    save_model(model, tokenizer, folder, lineage={"attention": "prefix"}, dtype=torch.float32)
    with pytest.raises(UserError, match=r"reads prompts both ways .*'prefix'"):
        export(folder, tmp_path / "out.gguf")


def test_values_beyond_float16_are_refused(tmp_path: Path, model: Any, tokenizer: Any) -> None:
    import torch

    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = 7e4
    folder = written(tmp_path / "hf", model, tokenizer)
    with pytest.raises(UserError, match=r"blk\.1\.ffn_up\.weight holds a value that float16"):
        export(folder, tmp_path / "out.gguf")
    assert not list(tmp_path.glob("*.gguf"))


def test_rows_that_do_not_fit_blocks_are_refused(tiny: Any, tmp_path: Path, tokenizer: Any) -> None:
    folder = written(tmp_path / "hf", tiny.make_model(hidden_size=48), tokenizer)
    with pytest.raises(UserError, match=r"hold 48 values; q8_0 needs a multiple of 32"):
        export(folder, tmp_path / "out.gguf", kind="q8_0")


def test_bad_requests(hf: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    with pytest.raises(UserError, match=r"unknown type 'f61'.*did you mean 'f16'"):
        export(hf, out, kind="f61")
    with pytest.raises(UserError, match=r"unknown format 'guff'.*did you mean 'gguf'"):
        export(hf, out, to="guff")
    with pytest.raises(UserError, match="--type and --llama-cpp are for --to gguf"):
        export(hf, out, to="hf", kind="q8_0")
    out.write_bytes(b"mine")
    with pytest.raises(UserError, match="exists already"):
        export(hf, out)
    assert out.read_bytes() == b"mine"


def test_a_file_that_is_another_model_is_found_out(
    tiny: Any, hf: Path, tmp_path: Path, model: Any
) -> None:
    path = tiny.write_gguf(tmp_path / "good.gguf", model, quantised=False, pre="gpt-2")
    assert check_gguf(hf, path)["largest_logit_difference"] < 1e-4
    wrong = tiny.make_model(seed=1)
    path = tiny.write_gguf(tmp_path / "wrong.gguf", wrong, quantised=False, pre="gpt-2")
    with pytest.raises(UserError, match="predicts otherwise than the model"):
        check_gguf(hf, path)
    path = tiny.write_gguf(tmp_path / "split.gguf", model, quantised=False, pre="smollm")
    with pytest.raises(UserError, match="gives other tokens for"):
        check_gguf(hf, path)


def test_llama_cpp_faults_are_told(hf: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    with pytest.raises(UserError, match=r"no convert_hf_to_gguf\.py in this llama\.cpp checkout"):
        export(hf, out, llama_cpp=tmp_path)
    script = tmp_path / "convert_hf_to_gguf.py"
    script.write_text("import sys\nprint('Traceback', file=sys.stderr)\nsys.exit('bad model')\n")
    with pytest.raises(UserError, match=r"llama\.cpp's converter failed: bad model"):
        export(hf, out, llama_cpp=tmp_path)
    assert not out.exists()


def test_what_llama_cpp_writes_is_checked_too(tiny: Any, hf: Path, tmp_path: Path) -> None:
    """A converter that writes another model: the same acceptance test finds it."""
    wrong = tiny.make_model(seed=1)
    other = tiny.write_gguf(tmp_path / "other.gguf", wrong, quantised=False, pre="gpt-2")
    checkout = tmp_path / "llama.cpp"
    checkout.mkdir()
    (checkout / "convert_hf_to_gguf.py").write_text(
        "import shutil, sys\n"
        f"shutil.copy({str(other)!r}, sys.argv[sys.argv.index('--outfile') + 1])\n"
    )
    with pytest.raises(UserError, match="predicts otherwise than the model"):
        export(hf, tmp_path / "out.gguf", llama_cpp=checkout)
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.slow
def test_the_same_tensors_as_llama_cpp_itself_writes(tmp_path: Path) -> None:
    """Set MEDEXPERT_TEST_LLAMA_CPP to a llama.cpp checkout, MEDEXPERT_TEST_MODEL to a folder."""
    checkout = os.environ.get("MEDEXPERT_TEST_LLAMA_CPP")
    model = os.environ.get("MEDEXPERT_TEST_MODEL")
    if not checkout or not model:
        pytest.skip("MEDEXPERT_TEST_LLAMA_CPP and MEDEXPERT_TEST_MODEL are not set")
    import gguf
    import numpy as np

    convert_with(Path(checkout), Path(model), tmp_path / "theirs.gguf", "f16")
    export(Path(model), tmp_path / "ours.gguf", check=False)
    theirs, ours = (
        {t.name: t for t in gguf.GGUFReader(tmp_path / name).tensors}
        for name in ("theirs.gguf", "ours.gguf")
    )
    assert set(ours) == set(theirs)
    for name, tensor in ours.items():
        assert tensor.tensor_type == theirs[name].tensor_type
        assert np.array_equal(tensor.data, theirs[name].data), name
    fields = [gguf.GGUFReader(tmp_path / name).fields for name in ("theirs.gguf", "ours.gguf")]
    for key in fields[0]:
        if key.startswith(("tokenizer.", "llama.", "qwen")):
            if key.endswith(("token_id", "space_prefix")) and key not in fields[1]:
                continue
            assert fields[1][key].contents() == fields[0][key].contents(), key


def _with_bos() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import PreTrainedTokenizerFast

    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(ByteLevel.alphabet()), "ĊĊ"]
    inner = Tokenizer(models.BPE({name: n for n, name in enumerate(names)}, [("Ċ", "Ċ")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=names[1], eos_token=names[2], pad_token=names[2]
    )


def _split_by(inner: Any, regex: str, normalizer: str | None) -> None:
    from tokenizers import Regex, normalizers, pre_tokenizers

    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(regex), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    if normalizer:
        inner.normalizer = getattr(normalizers, normalizer)()
