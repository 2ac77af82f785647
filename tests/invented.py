"""Text made up for tests: it reads like prose to a filter and says nothing."""

from __future__ import annotations

from random import Random

NOUNS = ("patients", "tablets", "wards", "nurses", "doses", "visits", "fevers", "scans", "wounds")
VERBS = ("followed", "changed", "delayed", "improved", "measured", "reported", "reduced", "needed")


def prose(seed: int, sentences: int) -> str:
    """Invented sentences, no two alike, in paragraphs."""
    random = Random(seed)
    made = [
        f"In the {random.choice(NOUNS)} of group {random.randrange(10**6)}, the "
        f"{random.choice(NOUNS)} {random.choice(VERBS)} what the {random.choice(NOUNS)} had "
        f"{random.choice(VERBS)} for {random.randrange(2, 99)} days and the {random.randrange(99)} "
        "hours after that."
        for _ in range(sentences)
    ]
    return "\n\n".join(" ".join(made[i : i + 4]) for i in range(0, sentences, 4))
