"""Any JSON value in any field of a published row: an item or a UserError, never a traceback."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medexpert.data.readers import READERS
from medexpert.records import Document, Example, UserError, to_json

ROWS: dict[str, dict[str, Any]] = {
    "documents": {"id": "a", "text": "t", "title": "x", "pmid": "1", "license": "MIT"},
    "pubmed_abstracts": {"id": "a", "text": "p &lt; 5", "title": "x", "pmid": 1, "lang": "en"},
    "tcm_classics": {"id": "a", "text": "字\n字", "source": "b"},
    "structured_abstracts": {"id": "PMC1", "sections": [{"label": "A", "text": "b"}], "year": 1},
    "pmc_fulltext": {"id": "PMC1", "title": "x", "sections": [{"heading": "A", "text": "b"}]},
    "s2orc": {
        "corpusid": 1, "externalids": {"PubMed": "1", "DOI": "x"},
        "content": {
            "source": {"oainfo": {"license": "x"}}, "text": "abcdef",
            "annotations": {
                "paragraph": '[{"start": 1, "end": 3}]', "title": [{"start": 0, "end": 1}],
            },
        },
    },
    "medrag": {"id": "a", "title": "A_b", "content": "c", "contents": "d", "PMID": 3},
    "guidelines": {"id": "a", "source": "w", "title": None, "clean_text": "x", "url": ""},
    "fineweb": {"id": "a", "text": "b", "language": "en"},
    "wikipedia": {"id": "1", "url": "https://en.wikipedia.org/x", "title": "t", "text": "x"},
    "text_jsonl": {"text": "x", "source": "y"},
    "pubmedqa_a": {
        "pmid": "1", "QUESTION": "q", "CONTEXTS": ["c"], "LONG_ANSWER": "l",
        "final_decision": "Yes",
    },
}  # fmt: skip
ROWS["pubmedqa_u"] = ROWS["pubmedqa_a"]
OLDER = {
    "paper_id": "1", "title": "t", "abstract": [{"text": "a"}], "doi": "x",
    "metadata": {"title": ""}, "body_text": [{"text": "b", "section": "s"}],
}  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value inside; JSON text is not entered."""
    inside: Any = ()
    if isinstance(value, dict):
        inside = value.items()
    elif isinstance(value, list):
        inside = enumerate(value)
    for key, held in list(inside):
        yield value, key
        yield from places(held)


@pytest.mark.parametrize(
    ("name", "row"), [*sorted(ROWS.items()), pytest.param("s2orc", OLDER, id="s2orc-older")]
)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_value_brings_a_traceback(name: str, row: Mapping[str, Any], data: Any) -> None:
    changed = copy.deepcopy(dict(row))
    for _ in range(data.draw(st.integers(0, 2))):
        spots = list(places(changed))
        held, key = spots[data.draw(st.integers(0, len(spots) - 1))]
        if data.draw(st.booleans()):
            held[key] = data.draw(VALUES)
        elif isinstance(held, dict) and key != "pmid":
            del held[key]
    if name.startswith("pubmedqa_"):
        changed["pmid"] = str(changed.get("pmid"))  # its source makes it a string
    convert: Callable[..., Any] = READERS[name].convert
    told = ""
    try:
        for item in convert("file:1", changed):
            if isinstance(item, Document | Example):
                to_json(item)
    except UserError as error:
        told = str(error)
    assert not told or told.startswith("file:1: ")
