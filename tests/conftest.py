"""Shared fixtures: tiny random models, a recipe for them, and the real data where present."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHAT = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
RECIPE = """
name = "tiny"
threads = 1
output = "{run}"
[base]
model = "{base}"
[[data.knowledge]]
source = "starter-passages-en"
limit = 40
heldout = 4
[[data.knowledge]]
source = "starter-general-en"
role = "replay"
limit = 20
heldout = 2
[[data.instruct]]
source = "starter-qa-en"
limit = 20
[[data.instruct]]
source = "starter-mcq-en"
limit = 20
[[data.adapt]]
source = "trialgen"
limit = 12
[knowledge]
max_tokens = 6000
sequence_length = 128
rows_per_step = 2
learning_rate = 1e-3
checkpoint_every = 2
[instruct]
max_tokens = 4000
sequence_length = 512
rows_per_step = 2
checkpoint_every = 2
[adapt]
epochs = 2
sequence_length = 1024
rows_per_step = 1
checkpoint_every = 2
[adapt.lora]
rank = 2
alpha = 4
[evaluate]
task = "trialgen"
limit = 6
batch_tokens = 2048
"""


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real published data: MEDEXPERT_DATA, or ../shared/data beside the project."""
    folder = Path(os.environ.get("MEDEXPERT_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "stage3" / "pubmedqa" / "ori_pqal.json").is_file():
        pytest.skip(f"no real data at {folder} (set MEDEXPERT_DATA)")
    return folder


@pytest.fixture
def tiny_model() -> Callable[..., Any]:
    """A function that makes a random Llama of a few thousand weights (CPU, fp32, sdpa)."""

    def make(seed: int = 0, **changes: Any) -> Any:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(seed)
        settings: dict[str, Any] = {
            "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
            "tie_word_embeddings": True,
        }  # fmt: skip
        return LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).eval()

    return make


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Llama with a byte-level tokenizer trained on the starter data."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    starter = ROOT / "src" / "medexpert" / "data" / "starter"
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    raw.train([str(p) for p in sorted(starter.glob("*_en*.jsonl"))], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<|im_start|>", eos_token="<|im_end|>",
        pad_token="<|im_end|>",
    )  # fmt: skip
    tokenizer.chat_template = CHAT
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=48, intermediate_size=96, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048,
            tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=2,
        )
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("base")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def recipe(tmp_path: Path, base_model: Path) -> Callable[..., Path]:
    """A function that writes the tiny recipe with its run folder at tmp_path/NAME."""

    def write(name: str = "run", text: str = RECIPE) -> Path:
        path = tmp_path / f"{name}.toml"
        path.write_text(text.format(run=tmp_path / name, base=base_model))
        return path

    return write
