"""A tiny random base model and a recipe of seconds for it."""

from __future__ import annotations

from pathlib import Path

STARTER = Path(__file__).resolve().parents[1] / "src" / "medexpert" / "data" / "starter"
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


def base(folder: Path) -> Path:
    """Write a random two-layer Llama, its byte-level tokenizer trained on the starter data."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    raw.train([str(p) for p in sorted(STARTER.glob("*_en*.jsonl"))], trainer)
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
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
