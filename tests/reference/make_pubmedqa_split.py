"""Makes src/medexpert/data/readers/pubmedqa_split.json: PMIDs of the official PubMedQA split.

    python tests/reference/make_pubmedqa_split.py FOLDER [OUTPUT]

FOLDER holds `ori_pqal.json` and `test_ground_truth.json` as published. The procedure is the
project's published one: generator seeded with 0; PMIDs grouped by label (yes, no, maybe), each
group shuffled and cut into pieces of ceil(n / k); k = 2 gives cross-validation and test; the
cross-validation half is cut again with k = 10, and since the last fold comes out short, one item
drawn from each other fold moves to it. The result is checked against the published test PMIDs.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections import Counter
from pathlib import Path

LABELS = ("yes", "no", "maybe")
OUTPUT = Path(__file__).parents[2] / "src/medexpert/data/readers/pubmedqa_split.json"


def pieces(
    pmids: list[str], labels: dict[str, str], k: int, draw: random.Random
) -> list[list[str]]:
    """Cut `pmids` into k label-balanced pieces, drawing from `draw` in the published order."""
    result: list[list[str]] = [[] for _ in range(k)]
    for label in LABELS:
        group = [pmid for pmid in pmids if labels[pmid] == label]
        draw.shuffle(group)
        size = math.ceil(len(group) / k)
        for i in range(k):
            end = None if i == k - 1 else (i + 1) * size
            result[i] += group[i * size : end]
    if len(result[-1]) != len(result[0]):
        for piece in result[:-1]:
            moved = draw.choice(piece)
            result[-1].append(moved)
            piece.remove(moved)
    return result


def make(folder: Path) -> dict[str, object]:
    """The split of the published files. Raises AssertionError when it is not the official one."""
    items = json.loads((folder / "ori_pqal.json").read_text(encoding="utf-8"))
    truth = json.loads((folder / "test_ground_truth.json").read_text(encoding="utf-8"))
    labels = {pmid: item["final_decision"] for pmid, item in items.items()}
    draw = random.Random(0)
    validation, test = pieces(list(labels), labels, 2, draw)
    folds = pieces(validation, labels, 10, draw)
    assert set(test) == set(truth), "the test PMIDs differ from test_ground_truth.json"
    assert {pmid: labels[pmid] for pmid in test} == truth, "the labels differ"
    assert Counter(labels[pmid] for pmid in folds[9]) == {"yes": 29, "no": 19, "maybe": 2}
    assert [len(fold) for fold in folds] == [50] * 10
    assert not set(test) & {pmid for fold in folds for pmid in fold}
    # The ground-truth file's own order is the order of record for the test items.
    return {
        "about": "official PubMedQA PQA-L split, PMIDs only; made by make_pubmedqa_split.py",
        "test": list(truth),
        "folds": folds,
    }


def render(value: dict[str, object]) -> str:
    return json.dumps(value, indent=1) + "\n"


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    target = Path(sys.argv[2]) if len(sys.argv) == 3 else OUTPUT
    target.write_text(render(make(Path(sys.argv[1]))), encoding="utf-8")
