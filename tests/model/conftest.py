"""A tiny random Llama with a byte-level tokenizer, and the same as a GGUF file. No network."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
HIDDEN, LAYERS, HEADS, KV_HEADS = 64, 2, 4, 2


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDEXPERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MEDEXPERT_WHEELS", raising=False)
    monkeypatch.delenv("MEDEXPERT_ACCEPT_LICENCE", raising=False)


def vocabulary() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return [*SPECIAL, *sorted(ByteLevel.alphabet()), "ĊĊ"]


def make_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {token: number for number, token in enumerate(vocabulary())}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=[("Ċ", "Ċ")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=SPECIAL[1],
        eos_token=SPECIAL[2],
        pad_token=SPECIAL[2],
        unk_token=SPECIAL[0],
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_model(seed: int = 0, **changes: Any) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = {
        "vocab_size": len(vocabulary()),
        "hidden_size": HIDDEN,
        "intermediate_size": 96,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).eval()
        for parameter in model.parameters():  # far enough from zero for rounding to show
            torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture
def tokenizer() -> Any:
    return make_tokenizer()


@pytest.fixture
def model() -> Any:
    return make_model()


@pytest.fixture
def hf(tmp_path: Path, model: Any, tokenizer: Any) -> Path:
    """A plain Hugging Face folder, as a user may have one; no manifest."""
    folder = tmp_path / "hf"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def sharded(tmp_path: Path, model: Any, tokenizer: Any) -> Path:
    folder = tmp_path / "sharded"
    model.save_pretrained(folder, max_shard_size="100KB")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tokens() -> Any:
    import torch

    return torch.tensor([[3, 40, 41, 42, 50, 60, 7, 2]])


def logits(model: Any, tokens: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(tokens).logits


def _permuted(weight: Any, heads: int) -> Any:
    """Rows in GGUF's order for rotary weights: halves interleaved within each head."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def _gguf_names() -> dict[str, str]:
    """Tensor names of a Llama in transformers -> in GGUF."""
    names = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
    }
    parts = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    for layer in range(LAYERS):
        names |= {
            f"model.layers.{layer}.{ours}.weight": f"blk.{layer}.{theirs}.weight"
            for ours, theirs in parts.items()
        }
    return names


def write_gguf(path: Path, model: Any, *, quantised: bool = True, pre: str = "smollm") -> Path:
    """`model` as a Llama GGUF with a byte-level vocabulary; linear layers in Q4_1."""
    import gguf

    kind = gguf.GGMLQuantizationType
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_license("apache-2.0")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(96)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(vocabulary()))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(vocabulary())
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(vocabulary()) - len(SPECIAL)))
    writer.add_token_merges(["Ċ Ċ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    for ours, theirs in _gguf_names().items():
        value = model.state_dict()[ours].float().numpy()
        if "attn_q" in theirs or "attn_k" in theirs:
            value = _permuted(value, HEADS if "attn_q" in theirs else KV_HEADS)
        if quantised and value.ndim == 2:
            value = gguf.quants.quantize(value, kind.Q4_1)
            writer.add_tensor(theirs, value, raw_dtype=kind.Q4_1)
        else:
            writer.add_tensor(theirs, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def gguf_file(tmp_path: Path, model: Any) -> Path:
    return write_gguf(tmp_path / "tiny.gguf", model)


@pytest.fixture
def tiny() -> SimpleNamespace:
    """The makers above, for tests (test files do not import each other)."""
    return SimpleNamespace(
        SPECIAL=SPECIAL,
        TEMPLATE=TEMPLATE,
        logits=logits,
        make_model=make_model,
        make_tokenizer=make_tokenizer,
        write_gguf=write_gguf,
    )
