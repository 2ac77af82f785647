"""Scores given prompts with lm-eval's own requests; runs in its own environment."""

from __future__ import annotations

import time

from evaluate_result import arguments, write


def main() -> None:
    """Modes are DTYPE or DTYPE-BATCH: lm-eval's batch size, by default its own default of 1."""
    args, work = arguments()
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    dtype, _, batch = args.mode.partition("-")
    model = HFLM(
        pretrained=work["model"], dtype=dtype, device="cpu", batch_size=int(batch or 1)
    )  # fmt: skip
    requests = [
        Instance("loglikelihood", {}, (prompt, label), number, ("given", at, 1))
        for at, prompt in enumerate(work["prompts"])
        for number, label in enumerate(work["labels"])
    ]
    warm = requests[: len(work["labels"])]
    model.loglikelihood(warm, disable_tqdm=True)
    started, worked = time.perf_counter(), time.process_time()
    found = model.loglikelihood(requests, disable_tqdm=True)
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    width = len(work["labels"])
    scores = [[value for value, _ in found[at : at + width]] for at in range(0, len(found), width)]
    write(args, seconds=seconds, cpu_seconds=cpu, scores=scores)


if __name__ == "__main__":
    main()
