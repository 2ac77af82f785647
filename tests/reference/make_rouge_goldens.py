"""Golden overlap of texts, made with the rouge-score package; run by hand, output committed.

    PYTHON tests/reference/make_rouge_goldens.py

PYTHON is that of lm_eval_env.py, which holds rouge-score. Writes rouge_goldens.json beside this.
"""

from __future__ import annotations

import json
from pathlib import Path

from rouge_score.rouge_scorer import RougeScorer

PAIRS = [
    ("Take one tablet a day.", "Take one tablet a day."),
    ("Take two tablets every day", "Every day, take two of the tablets."),
    ("a b a b c", "b a c a b b"),
    ("No", "yes"),
    ("", "something"),
    ("5-mg (oral) TABLET, 2x/day", "5 mg oral tablet twice a day"),
    ("the the the", "the"),
    ("It isn't known.", "It is not known"),
]


def main() -> None:
    """Write the goldens."""
    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=False)
    cases = []
    for answer, reference in PAIRS:
        found = scorer.score(reference, answer)
        cases.append({"answer": answer, "reference": reference,
                      "rouge_1": found["rouge1"].fmeasure,
                      "rouge_l": found["rougeL"].fmeasure})  # fmt: skip
    text = json.dumps(cases, indent=1)
    Path(__file__).with_name("rouge_goldens.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
