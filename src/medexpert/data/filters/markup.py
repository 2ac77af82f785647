"""Markup residue -> the text it stood for; code that a text shows to its reader is left alone.

Only marks that are known by name go: `<VGPR` in "from <VGPR before" is text, and so is `<5%`.
Light Markdown (headings, lists, bold) is structure and stays.
"""

from __future__ import annotations

import html
import re

_INLINE = (
    "i|b|u|em|strong|sub|sup|small|big|tt|span|font|a|s|strike|center|abbr|cite|mark|nobr|wbr|"
    "italic|bold|underline|sc|monospace|xref|ext-link|named-content|styled-content|inline-formula|"
    "inline-graphic|email|uri|jats:[a-z-]+|mml:[a-z]+|link"
)
_BLOCK = (
    "p|br|hr|div|li|ul|ol|dl|dt|dd|table|thead|tbody|tfoot|tr|td|th|caption|h[1-6]|blockquote|pre|"
    "section|article|header|footer|nav|aside|main|figure|figcaption|img|html|head|body|title|meta|"
    "form|input|button|label|iframe|object|sec|fig|disp-formula|table-wrap|list|list-item|ref-list"
)
DEPTH = 8
_MATH_END = "\\end{document}"
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_HIDDEN = re.compile(r"<(script|style|noscript)\b[^<>]*>", re.IGNORECASE)
_HIDDEN_END = re.compile(r"</(?:script|style|noscript)\s{0,9}>", re.IGNORECASE)
_DOCTYPE = re.compile(r"<(?:!DOCTYPE|\?xml)\b[^<>]*>", re.IGNORECASE)
_ATTRIBUTES = r"(?:\s+[\w:.-]+(?:\s*=\s*(?:\"[^\"<>]*\"|'[^'<>]*'|[^\s<>\"']+))?)*\s*/?"
_INLINE_TAG = re.compile(rf"</?(?:{_INLINE}){_ATTRIBUTES}>", re.IGNORECASE)
# What a consultation site leaves of its own links.
_LINK_MARK = re.compile(r"(?<![\s-])\s*-+>\s*<link>")
_BLOCK_TAG = re.compile(rf"</?(?:{_BLOCK}){_ATTRIBUTES}>", re.IGNORECASE)
_TAG_SIGN = re.compile(r"<[A-Za-z/!?\u4e00-\u9fff]")
# Not in the row of a Markdown table, which a line end would break.
_BREAK = re.compile(r"(?<!\|) ?<br\s*/?> ?(?![^\n]*\|)", re.IGNORECASE)
_ESCAPED_TWICE = re.compile(r"&(?:amp;)+")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_LATEX_STYLE = re.compile(r"\\(?:text(?:bf|it|rm|sc|sf|tt|up|normal)?|emph|mathrm)\{([^{}\\]*)\}")
_LATEX_MARK = re.compile(
    r"[ ~]?\\(?:cite[pt]?|ref|label|footnotemark|usepackage)(?:\[[^]]{0,200}\])?\{[^{}]*\}"
)
_WIKI_SIGN = re.compile(
    r"'''|\[\[(?:File|Image|Category|文件|分类|檔案)[::]|\{\{[A-Za-z][^{}\n]*\|"
)
_WIKI_MEDIA = re.compile(
    r"\[\[(?:File|Image|Category|文件|分类|檔案)[::][^\[\]]*\]\]", re.IGNORECASE
)
_WIKI_LINK = re.compile(r"\[\[(?:[^\[\]|\n]*\|)?([^\[\]|\n]*)\]\]")
_WIKI_TEMPLATE = re.compile(r"\{\{[^{}]*\}\}")
_WIKI_HEAD = re.compile(r"^(={2,5}) *([^=\n]{1,120}?) *\1[ \t]*$", re.MULTILINE)
_MD_LINK = re.compile(
    r"!?\[([^\[\]\n]*)\]\((?:https?://|mailto:|/|\.{1,2}/|#)[^()\s]*(?: \"[^\"]*\")?\)"
)
# WikiText's tokeniser sets hyphens and marks inside numbers apart: `self @-@ help`, `5 @.@ 2`.
_AT_MARK = re.compile(r" @([-,.])@ ")
# The pages of TCM-Ancient-Books: \x...\x around quotations, <...> before a heading.
_BOOK_MARK = re.compile(r"\\[xr](?![A-Za-z])|\\p\w{1,12}\.(?:bmp|jpg|gif)|<(?:目录|篇名)>")
_TRAILING = re.compile(r"(?<![ \t])[ \t]+(?=\n)")
_WRAPPED = re.compile(r"(?<=[^\n]{29}[\u3400-\u9fff、，；]) +\n(?=[\u3400-\u9fff，。、；：！？])")
_GAPS = re.compile(r"\n{3,}")


def unmark(text: str, *, prose: bool = True) -> str:
    """The text without markup residue; code in backticks or fences is not touched.

    `prose=False` (fields of an example, where markup may be what the question is about) undoes only
    entities, inline tags and `<br>`. Running it again changes nothing. Markup nested deeper than
    DEPTH is no residue of a page, and a text with such is returned as it is.
    """
    fixed = text
    for _ in range(DEPTH):
        before = fixed
        fixed = _outside_code(fixed, prose) if "`" in fixed else _unmark(fixed, prose)
        if fixed == before:
            return fixed
    return text


def _outside_code(text: str, prose: bool) -> str:
    parts, end = [], 0
    for code in _CODE.finditer(text):
        parts += [_unmark(text[end : code.start()], prose), code.group()]
        end = code.end()
    return "".join([*parts, _unmark(text[end:], prose)])


def _unmark(text: str, prose: bool) -> str:
    # Each step is behind a look for the sign it needs: plain text costs a few searches.
    if "&" in text:
        text = _ENTITY.sub(_character, _ESCAPED_TWICE.sub("&", text))
    if "<" in text:
        text = _untag(text, prose)
    if not prose:
        return text
    if "\\" in text:
        text = _without_preamble(_LATEX_STYLE.sub(r"\1", text))
        text = _BOOK_MARK.sub("", _LATEX_MARK.sub("", text))
    if "](" in text:
        text = _MD_LINK.sub(r"\1", text)
    if ("[[" in text or "{{" in text or "'''" in text) and _WIKI_SIGN.search(text):
        text = _unwiki(text)
    if "@ " in text:
        text = _AT_MARK.sub(r"\1", text)
    return text


def _untag(text: str, prose: bool) -> str:
    if _TAG_SIGN.search(text) is None:
        return text
    if "<link>" in text:
        text = _LINK_MARK.sub("", text)
    if prose:
        text = _DOCTYPE.sub("", _cut(_without_scripts(text), "<!--", "-->"))
        text = _BLOCK_TAG.sub("\n", _BOOK_MARK.sub("", text))
    elif "<br" in text:
        text = _BREAK.sub("\n", text)
    return _INLINE_TAG.sub("", text)


def _cut(text: str, opening: str, closing: str) -> str:
    """The text without each stretch from `opening` to the next `closing`, in linear time."""
    parts, place = [], 0
    while (start := text.find(opening, place)) >= 0:
        end = text.find(closing, start + len(opening))
        if end < 0:
            break
        parts.append(text[place:start])
        place = end + len(closing)
    return "".join([*parts, text[place:]]) if parts else text


def _without_scripts(text: str) -> str:
    """The text without scripts and style sheets that are closed, in linear time."""
    parts, place = [], 0
    while (start := _HIDDEN.search(text, place)) is not None:
        end = _HIDDEN_END.search(text, start.end())
        if end is None:
            break
        parts.append(text[place : start.start()])
        place = end.end()
    return "".join([*parts, text[place:]]) if parts else text


def _without_preamble(text: str) -> str:
    """A formula's LaTeX without the document that its publisher set around it."""
    return _cut(text, "\\documentclass", "\\begin{document}").replace(_MATH_END, "")


def _character(match: re.Match[str]) -> str:
    """The character of an entity; one that HTML does not know, or a control, stays as it is."""
    found = html.unescape(match.group())
    return found if found.isprintable() and "\ufffd" not in found else match.group()


def _unwiki(text: str) -> str:
    text = _WIKI_LINK.sub(r"\1", _WIKI_TEMPLATE.sub("", _WIKI_MEDIA.sub("", text)))
    return _WIKI_HEAD.sub(r"\2", text.replace("'''", "").replace("''", ""))


def unwrap(text: str) -> str:
    """Blanks at line ends and runs of empty lines removed; Chinese wrapped at a width joined.

    Joined where a line of 30 or more characters ends inside a sentence with a blank before the
    line end, as a fixed-width print leaves it, and the next line goes on in Chinese.
    """
    if " \n" in text or "\t\n" in text:
        text = _TRAILING.sub("", _WRAPPED.sub("", text))
    return _GAPS.sub("\n\n", text) if "\n\n\n" in text else text


def markup_share(text: str) -> float:
    """Share of characters inside tags, entities and braces of scripts."""
    if "<" not in text and "{" not in text and "&" not in text:
        return 0.0
    return sum(len(found) for found in _MARKS.findall(text)) / max(1, len(text))


_MARKS = re.compile(
    r"</?[A-Za-z][\w:.-]*(?:\s[^<>\n]{0,300})?/?>|\{[^{}\n]{0,200};\s*\}"
    r"|&[A-Za-z#][A-Za-z0-9]{1,31};"
)
