"""Trains with TRL's SFTTrainer on given rows of tokens; runs in its own environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from train_trainer import Clock, arguments, write


def main() -> None:
    """`default`: nothing set but the work. `bf16`: its bf16, without its recomputation of
    activations. `tuned`: also fused AdamW. `pure`: weights in bf16 throughout: updates are rounded.
    """
    args, work = arguments()
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    chosen: dict[str, Any] = {}
    if args.mode != "default":
        chosen |= {"bf16": True, "gradient_checkpointing": False}
    if args.mode in ("tuned", "pure"):
        chosen |= {"optim": "adamw_torch_fused"}
    if args.mode == "pure":
        chosen |= {"model_init_kwargs": {"dtype": torch.bfloat16}}
    config = SFTConfig(
        output_dir=str(Path(args.out).with_suffix(".model")),
        max_length=len(work["rows"][0]),
        per_device_train_batch_size=work["rows_per_step"],
        max_steps=work["steps"],
        learning_rate=work["learning_rate"],
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        seed=1,
        train_sampling_strategy="sequential",
        use_cpu=work["device"] == "cpu",
        **chosen,
    )
    adapter = None
    if args.method == "lora":
        from peft import LoraConfig

        adapter = LoraConfig(
            r=work["rank"], lora_alpha=2 * work["rank"], lora_dropout=0.0,
            target_modules="all-linear", task_type="CAUSAL_LM",
        )  # fmt: skip
    rows = Dataset.from_dict({"input_ids": work["rows"]})
    clock = Clock()
    trainer = SFTTrainer(
        model=work["model"], args=config, train_dataset=rows, peft_config=adapter,
        callbacks=[clock],
    )  # fmt: skip
    trainer.train()
    write(args, work, clock)


if __name__ == "__main__":
    main()
