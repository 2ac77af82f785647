"""The systems that answer: what each is given to do, where it is installed, how it is started."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class System:
    """One system in one setting. `environment` names its requirements file, "" for ours; `server`
    that of a server which the script starts and asks."""

    name: str
    part: str
    label: str
    environment: str
    script: str
    mode: str
    does: str
    server: str = ""


_ALL = (
    System("direct-ours", "direct", "medexpert", "", "evaluate_ours.py", "float32", "fp32"),
    System("direct-lm-eval", "direct", "lm-eval", "lm-eval", "evaluate_lm_eval.py", "float32",
           "fp32, batch 1 (its default)"),
    System("direct-lm-eval-8", "direct", "lm-eval", "lm-eval", "evaluate_lm_eval.py", "float32-8",
           "fp32, batch 8"),
    System("direct-ours-bf16", "direct", "medexpert", "", "evaluate_ours.py", "bfloat16", "bf16"),
    System("direct-lm-eval-bf16", "direct", "lm-eval", "lm-eval", "evaluate_lm_eval.py",
           "bfloat16", "bf16, batch 1 (its default)"),
    System("direct-lm-eval-bf16-8", "direct", "lm-eval", "lm-eval", "evaluate_lm_eval.py",
           "bfloat16-8", "bf16, batch 8"),
    System("voc-ours", "voc", "medexpert", "", "evaluate_ours.py", "float32", "fp32"),
    System("voc-naive", "voc", "transformers", "", "evaluate_naive.py", "float32",
           "fp32, the same prompts one by one, `generate`"),
    System("voc-vllm", "voc", "vLLM", "", "evaluate_vllm.py", "float32",
           "fp32, prefix caching, over HTTP", server="vllm"),
    System("growth-ours", "growth", "medexpert", "", "evaluate_ours.py", "float32", "fp32"),
)  # fmt: skip
SYSTEMS = {system.name: system for system in _ALL}
PARTS = tuple(dict.fromkeys(system.part for system in _ALL))
ASKED_FOR = ("voc-vllm",)
"""Run only when named: its environment is large and its server slow to start."""
