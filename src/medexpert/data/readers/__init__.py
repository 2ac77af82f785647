"""One function per published raw format: files -> Document | Example, or a Drop or Change.

A row that breaks the format is a UserError with file and line; a row that is well formed but not
usable is a Drop. PubMedQA and trialgen need a fold or a seed, so the build calls them itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from medexpert.data.readers import documents, examples
from medexpert.data.readers.rows import Item

Reader = Callable[[Sequence[Path]], Iterator[Item]]

READERS: dict[str, Reader] = {
    "documents": documents.documents,
    "pubmed_abstracts": documents.pubmed_abstracts,
    "structured_abstracts": documents.structured_abstracts,
    "tcm_classics": documents.tcm_classics,
    "qa": examples.qa,
    "reasoning": examples.reasoning,
    "mcq": examples.mcq,
    "conversations": examples.conversations,
    "headqa": examples.headqa,
}
