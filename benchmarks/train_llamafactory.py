"""Trains with LLaMA-Factory on given rows of tokens; runs in its own environment."""

from __future__ import annotations

import importlib.machinery
import json
import sys
import types
from pathlib import Path

from train_trainer import Clock, arguments, write


def main() -> None:
    """LLaMA-Factory's own trainer, from tokenised rows."""
    args, work = arguments()
    try:
        import torchaudio  # noqa: F401
    except (ImportError, OSError):
        # It is imported for audio inputs, which there are none of; its wheels need a GPU's PyTorch.
        absent = types.ModuleType("torchaudio")
        absent.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
        sys.modules["torchaudio"] = absent
    from datasets import Dataset, DatasetDict
    from llamafactory.train.tuner import run_exp

    rows = work["rows"]
    told = Dataset.from_dict(
        {"input_ids": rows, "attention_mask": [[1] * len(r) for r in rows], "labels": rows}
    )
    folder = Path(args.out).with_suffix(".rows")
    DatasetDict({"train": told}).save_to_disk(str(folder))
    settings = {
        "stage": "pt", "do_train": True, "model_name_or_path": work["model"],
        "finetuning_type": "lora" if args.method == "lora" else "full",
        "dataset": "rows", "tokenized_path": str(folder), "cutoff_len": len(rows[0]),
        "output_dir": str(Path(args.out).with_suffix(".model")), "overwrite_output_dir": True,
        "per_device_train_batch_size": work["rows_per_step"], "gradient_accumulation_steps": 1,
        "max_steps": work["steps"], "learning_rate": work["learning_rate"],
        "lr_scheduler_type": "constant", "weight_decay": 0.0, "adam_beta2": 0.95,
        "max_grad_norm": 1.0, "logging_steps": 1, "save_strategy": "no", "report_to": "none",
        "disable_shuffling": True, "seed": 1, "use_cpu": work["device"] == "cpu",
    }  # fmt: skip
    if args.mode == "tuned":
        settings |= {"bf16": True, "disable_gradient_checkpointing": True}
        settings |= {"optim": "adamw_torch_fused", "flash_attn": "sdpa"}
    if args.method == "lora":
        settings |= {"lora_rank": work["rank"], "lora_alpha": 2 * work["rank"],
                     "lora_dropout": 0.0, "lora_target": "all"}  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    clock = Clock()
    run_exp(settings, [clock])
    # It divides by all tokens of a row, though the first of each has nothing that predicts it.
    width = len(rows[0])
    clock.losses = [loss * width / (width - 1) for loss in clock.losses]
    write(args, work, clock)


if __name__ == "__main__":
    main()
