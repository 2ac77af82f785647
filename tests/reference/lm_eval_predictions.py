"""Run lm-evaluation-harness itself on local rows; started in the environment of lm_eval_env.py.

    PYTHON lm_eval_predictions.py MODEL ROWS.json OUT.json [SAMPLES]

ROWS.json: {lm-eval's task name: rows in the schema of the data set that the task reads}. The task's
own YAML, prompt functions, scoring and metric are used; only the place of the rows is replaced.
Writes {task: {"accuracy": ..., "items": [{"prompt", "logprobs", "predicted", "gold"}, ...]}}, and
to the folder SAMPLES a file samples_TASK.jsonl each, as its --log_samples does.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.update(HF_DATASETS_OFFLINE="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import lm_eval
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate
from lm_eval.loggers import EvaluationTracker
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._yaml_loader import load_yaml

TASKS = Path(lm_eval.__file__).parent / "tasks"
FILES = {
    "pubmedqa": "pubmedqa/pubmedqa.yaml",
    "medqa_4options": "medqa/medqa.yaml",
    "medmcqa": "medmcqa/medmcqa.yaml",
}


def task(name: str, rows: Path, cache: Path) -> Any:
    """lm-eval's own task with its test split taken from a JSONL file."""
    file = FILES.get(name) or f"mmlu/default/{name}.yaml"
    config = dict(load_yaml(TASKS / file))
    for key in ("dataset_name", "training_split", "validation_split", "fewshot_split",
                "fewshot_config", "tag", "group"):  # fmt: skip
        config.pop(key, None)
    config |= {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(rows)}, "cache_dir": str(cache)},
        "test_split": "test",
    }
    return ConfigurableTask(config=config)


def main(model: str, rows: str, out: str, logged: str = "") -> None:
    """Evaluate every task of `rows` with one model in fp32 on the CPU."""
    wanted = json.loads(Path(rows).read_text("utf-8"))
    lm = HFLM(pretrained=model, device="cpu", dtype="float32", batch_size=1)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        tasks = {}
        for name, items in wanted.items():
            path = Path(folder) / f"{name}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in items), "utf-8")
            tasks[name] = task(name, path, Path(folder) / "cache")
        found = evaluate(lm, tasks, log_samples=True, bootstrap_iters=0)
    for name in wanted:
        samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
        results[name] = {
            "accuracy": found["results"][name]["acc,none"],
            "items": [_item(sample) for sample in samples],
        }
    Path(out).write_text(json.dumps(results, ensure_ascii=False) + "\n", "utf-8")
    if logged:
        tracker = EvaluationTracker(output_path=f"{logged}/results.json")
        tracker.date_id = "made"
        for name in wanted:
            tracker.save_results_samples(name, found["samples"][name])
            file = Path(logged) / f"samples_{name}_made.jsonl"
            file.rename(file.with_name(f"samples_{name}.jsonl"))


def _item(sample: dict[str, Any]) -> dict[str, Any]:
    logprobs = [float(pair[0]) for pair in sample["filtered_resps"]]
    first = sample["arguments"]
    pair = first["gen_args_0"] if isinstance(first, dict) else first[0]
    return {
        "prompt": pair["arg_0"] if isinstance(pair, dict) else pair[0],
        "logprobs": logprobs,
        "predicted": max(range(len(logprobs)), key=lambda k: (logprobs[k], -k)),
        "gold": sample["target"],
        "acc": sample["acc"],
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
