"""Golden answers of lm-evaluation-harness on invented questions with a tiny random model.

    python tests/reference/make_lm_eval_goldens.py FOLDER

FOLDER holds (or will hold) the harness's environment, see lm_eval_env.py. Writes
lm_eval_goldens.json beside this file: per item its log-probabilities, its choice and the digest of
its prompt; and lm_eval_samples.json: of each task the first and the last line that --log_samples
writes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))


def main(folder: Path) -> None:
    """Make the goldens."""
    import lm_eval_env

    import lm_eval_rows
    import tiny
    from medexpert.records import digest

    python = lm_eval_env.make(folder)
    with tempfile.TemporaryDirectory() as scratch:
        model = tiny.base(Path(scratch) / "model")
        rows, out = Path(scratch) / "rows.json", Path(scratch) / "out.json"
        asked = lm_eval_rows.invented()
        rows.write_text(json.dumps({name: items for name, (_, items) in asked.items()}))
        script, logged = HERE / "lm_eval_predictions.py", Path(scratch) / "samples"
        subprocess.run([python, script, model, rows, out, logged], check=True)
        found = json.loads(out.read_text("utf-8"))
        samples = {}
        for name in found:
            lines = (logged / f"samples_{name}.jsonl").read_text("utf-8").rstrip("\n").split("\n")
            samples[name] = [lines[0], lines[-1]]
    for task in found.values():
        for item in task["items"]:
            item["prompt"] = digest(item.pop("prompt"))
    text = json.dumps(found, indent=1)
    (HERE / "lm_eval_goldens.json").write_text(text + "\n", "utf-8")
    text = json.dumps(samples, indent=1, ensure_ascii=False)
    (HERE / "lm_eval_samples.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
