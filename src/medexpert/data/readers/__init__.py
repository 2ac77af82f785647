"""One reader per published raw format: part of a file -> Document | Example, or what became of it.

PubMedQA's folds and trialgen need a fold or a seed, so the build calls them itself.
"""

from __future__ import annotations

from medexpert.data.readers import (
    apollo,
    articles,
    bioasq,
    conversations,
    documents,
    examples,
    instructions,
    jats,
    local,
    mcq,
    medline,
    pubmedqa_sets,
    questions,
    rct,
)
from medexpert.data.readers.rows import Reader


def _joined(*tables: dict[str, Reader]) -> dict[str, Reader]:
    """One table; a name in two of them is a mistake of ours."""
    readers: dict[str, Reader] = {}
    for table in tables:
        twice = readers.keys() & table.keys()
        assert not twice, f"two readers are called {sorted(twice)}"
        readers |= table
    return readers


READERS: dict[str, Reader] = _joined(
    documents.READERS,
    articles.READERS,
    medline.READERS,
    jats.READERS,
    rct.READERS,
    local.READERS,
    examples.READERS,
    questions.READERS,
    mcq.READERS,
    apollo.READERS,
    conversations.READERS,
    instructions.READERS,
    bioasq.READERS,
    pubmedqa_sets.READERS,
)
