"""The data card: facts of a build -> Markdown and one self-contained HTML page.

`facts` defines what a build must tell; `flow` adds it up; `tables` makes the sections that
`markdown` and `html` print; `sankey` and `bars` draw.
"""

from __future__ import annotations

from medexpert.data.card.facts import (
    BenchmarkFacts,
    CardFacts,
    Fault,
    Guarded,
    Input,
    Sample,
    SourceFacts,
    StageFacts,
    unaccounted,
)
from medexpert.data.card.flow import length_bin
from medexpert.data.card.html import render_html
from medexpert.data.card.markdown import render_markdown

__all__ = [
    "BenchmarkFacts",
    "CardFacts",
    "Fault",
    "Guarded",
    "Input",
    "Sample",
    "SourceFacts",
    "StageFacts",
    "length_bin",
    "render_html",
    "render_markdown",
    "unaccounted",
]
