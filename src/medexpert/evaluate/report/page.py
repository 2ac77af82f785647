"""The frame of report.html: one file, no script, no outside request, light and dark."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from medexpert.evaluate.report.blocks import Section, to_html, to_markdown

STYLE = Path(__file__).with_name("page.css")


def html_page(title: str, subtitle: str, sections: Sequence[Section], footer: str) -> str:
    """The whole page. Text is escaped; sections bring their own markup from `blocks`."""
    style = STYLE.read_text(encoding="utf-8")
    links = "".join(
        f'<a href="#{s.anchor}">{html.escape(s.title)}</a>' for s in sections if s.title
    )
    body = []
    for section in sections:
        heading = f"<h2>{html.escape(section.title)}</h2>" if section.title else ""
        inner = "\n".join(to_html(block) for block in section.blocks)
        body.append(f'<section id="{section.anchor}">{heading}\n{inner}</section>')
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{style}</style></head>\n<body><main>"
        f"<header><h1>{html.escape(title)}</h1><p>{html.escape(subtitle)}</p><nav>{links}</nav></header>\n"
        + "\n".join(body)
        + f"\n<footer>{html.escape(footer)}</footer></main></body></html>\n"
    )


def markdown_page(title: str, subtitle: str, sections: Sequence[Section], footer: str) -> str:
    """The same report as Markdown."""
    parts = [f"# {title}", subtitle]
    for section in sections:
        if section.title:
            parts.append(f"## {section.title}")
        parts += [to_markdown(block) for block in section.blocks]
    return "\n\n".join([*parts, "---", footer]) + "\n"
