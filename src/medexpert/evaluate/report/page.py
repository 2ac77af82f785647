"""The frame of report.html: one file, no script, no outside request, light and dark."""

from __future__ import annotations

import html
from collections.abc import Sequence

from medexpert.evaluate.report.blocks import Section, to_html, to_markdown

STYLE = """
:root { color-scheme: light dark;
  --paper:#fdfdfb; --ink:#1c2126; --muted:#5c6670; --grid:#dfe3e6; --panel:#f3f5f5; --line:#cfd5d9;
  --c0:#1f6fb2; --c1:#c2591b; --c2:#2c7f52; --c3:#8b4aa3; --c4:#a17700; --c5:#b83a5e;
  --warn:#fff3dc; --warn-line:#d08a12; --good:#2c7f52; --bad:#b8403a; }
@media (prefers-color-scheme: dark) { :root {
  --paper:#14181c; --ink:#e4e8eb; --muted:#9aa5ae; --grid:#2c343b; --panel:#1c2227; --line:#3a444c;
  --c0:#6fb3ec; --c1:#f0a26b; --c2:#6fc795; --c3:#cb97e0; --c4:#dcb94e; --c5:#ee8aa5;
  --warn:#33270f; --warn-line:#d69a33; --good:#6fc795; --bad:#f0857e; } }
* { box-sizing:border-box }
body { margin:0; background:var(--paper); color:var(--ink);
  font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Noto Sans CJK SC",sans-serif }
main { max-width:66rem; margin:0 auto; padding:2.5rem 1.5rem 4rem }
header p { color:var(--muted); margin:.2rem 0 0 }
h1 { font-size:1.9rem; line-height:1.2; margin:0; letter-spacing:-.015em }
h2 { font-size:1.25rem; margin:3rem 0 .6rem; padding-top:.9rem; border-top:1px solid var(--line);
  letter-spacing:-.01em }
h3 { font-size:1rem; margin:0 0 .5rem }
p { max-width:46rem; margin:.5rem 0 1rem }
nav { margin:1.2rem 0 0; font-size:.9rem; display:flex; flex-wrap:wrap; gap:.2rem 1.1rem }
nav a { color:var(--c0); text-decoration:none }
nav a:hover { text-decoration:underline }
.cards { display:grid; grid-template-columns:repeat(auto-fit,minmax(12rem,1fr)); gap:.8rem;
  margin:1.6rem 0 }
.cards div { background:var(--panel); border-radius:.5rem; padding:.8rem 1rem }
.cards dt { color:var(--muted); font-size:.85rem }
.cards dd { margin:0; font-size:1.7rem; font-weight:600; line-height:1.25;
  font-variant-numeric:tabular-nums; letter-spacing:-.01em }
.cards small { display:block; font-size:.8rem; font-weight:400; color:var(--muted);
  letter-spacing:0; line-height:1.4; margin-top:.15rem }
.note { border-left:4px solid var(--c0); background:var(--panel); padding:.7rem 1rem;
  margin:1rem 0; border-radius:0 .4rem .4rem 0; max-width:52rem }
.note.warning { border-color:var(--warn-line); background:var(--warn) }
.table { overflow-x:auto; margin:1rem 0 1.6rem }
table { border-collapse:collapse; font-size:.875rem; font-variant-numeric:tabular-nums;
  min-width:32rem }
caption { caption-side:top; text-align:left; color:var(--muted); padding:0 0 .5rem; max-width:52rem }
th { font-weight:600; text-align:left; vertical-align:bottom; border-bottom:1.5px solid var(--line);
  padding:.35rem .7rem .35rem 0; line-height:1.3 }
td { padding:.32rem .7rem .32rem 0; border-bottom:1px solid var(--grid); vertical-align:top }
th.n, td.n { text-align:right; padding-left:.5rem }
td.n { white-space:nowrap }
tr.strong td { font-weight:600 }
tr.faint td { color:var(--muted); font-style:italic }
figure { margin:1.2rem 0 1.8rem }
figcaption { color:var(--muted); font-size:.875rem; max-width:46rem; margin-top:.3rem }
.chart { overflow-x:auto }
.chart svg { max-width:100%; height:auto; display:block }
.chart text { font-family:inherit }
pre { background:var(--panel); padding:.8rem 1rem; border-radius:.4rem; font-size:.8rem;
  line-height:1.5; white-space:pre-wrap; overflow-wrap:anywhere; max-height:28rem; overflow:auto }
details { margin:.5rem 0 } summary { cursor:pointer; color:var(--c0); font-size:.9rem }
.case { border-left:4px solid var(--bad); background:var(--panel); padding:.9rem 1.1rem;
  border-radius:0 .5rem .5rem 0; margin:0 0 1rem }
.case.right { border-color:var(--good) }
.facts { display:grid; grid-template-columns:max-content 1fr; gap:.15rem 1rem; margin:0;
  font-size:.9rem; font-variant-numeric:tabular-nums }
.facts dt { color:var(--muted) } .facts dd { margin:0; overflow-wrap:anywhere }
footer { margin-top:3rem; color:var(--muted); font-size:.85rem }
@media print { main { max-width:none; padding:0 } details { display:block } }
"""


def html_page(title: str, subtitle: str, sections: Sequence[Section], footer: str) -> str:
    """The whole page. Text is escaped; sections bring their own markup from `blocks`."""
    links = "".join(f'<a href="#{s.anchor}">{html.escape(s.title)}</a>' for s in sections if s.title)
    body = []
    for section in sections:
        heading = f"<h2>{html.escape(section.title)}</h2>" if section.title else ""
        inner = "\n".join(to_html(block) for block in section.blocks)
        body.append(f'<section id="{section.anchor}">{heading}\n{inner}</section>')
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n<body><main>"
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
