"""The work of the training benchmark: a model and rows of tokens, the same for all systems."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

RANDOM: dict[str, dict[str, int]] = {
    "random:tiny": {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2,
    },
    "random:1b": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8,
    },
    "random:8b": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8,
    },
}  # fmt: skip
"""Shapes of Llama 3 with random weights and SmolLM2's tokenizer: enough for speed and memory."""


def make_work(args: argparse.Namespace) -> Path:
    """The JSON file that every system's script reads; the same arguments give the same bytes."""
    folder = model_folder(args.model, args.cache)
    count = (args.warmup + args.steps) * args.rows
    work: dict[str, Any] = {
        "model": str(folder),
        "device": args.device,
        "rank": args.rank,
        "learning_rate": args.learning_rate,
        "rows_per_step": args.rows,
        "micro_rows": args.micro_rows,
        "steps": args.warmup + args.steps,
        "warmup": args.warmup,
        "rows": token_rows(folder, count, args.tokens, args.cache),
    }
    path: Path = args.cache / "train-work.json"
    path.write_text(json.dumps(work) + "\n", "utf-8")
    return path


def model_folder(name: str, cache: Path) -> Path:
    """The folder of a base by name, or of a random model, made once."""
    from medexpert.model.base import fetch

    if name not in RANDOM:
        return Path(fetch(name))
    folder = cache / name.replace(":", "-")
    if (folder / "done").exists():
        return folder
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    print(f"making {name} (not timed)", flush=True)
    tokenizer = AutoTokenizer.from_pretrained(fetch("smollm2-135m-instruct"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=8192, tie_word_embeddings=True,
        rope_theta=500000.0, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, **RANDOM[name],
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "done").touch()
    return folder


def token_rows(folder: Path, count: int, width: int, cache: Path) -> list[list[int]]:
    """`count` rows of `width` tokens of the generated corpus, an empty line between documents.

    Not end-of-text: LLaMA-Factory's collator takes it for padding where the two are one token, and
    would learn from fewer tokens than the others.
    """
    from corpus import BLOCK, write_corpus
    from transformers import AutoTokenizer

    documents = BLOCK
    while documents * 300 < count * width:  # documents are about 350 tokens long
        documents *= 2
    corpus = cache / f"en-{documents}-1"
    write_corpus(corpus, documents, seed=1, language="en")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    stream: list[int] = []
    for shard in sorted((corpus / "shards").glob("*.jsonl")):
        for line in shard.read_text("utf-8").splitlines():
            stream += tokenizer(json.loads(line)["text"] + "\n\n")["input_ids"]
            if len(stream) >= count * width:
                return [stream[i * width : (i + 1) * width] for i in range(count)]
    raise SystemExit(f"the corpus has {len(stream)} tokens, {count * width} are needed")
