"""Lines that belong to the page or the journal, not to what it says.

Whole lines go, never a part of a sentence: a line is taken out when all of it has the form of
boilerplate. The exception is the end of a text, where publishers append their own sentences
("© 2012 Elsevier Ltd. All rights reserved.", "(ABSTRACT TRUNCATED AT 250 WORDS)").
A section (competing interests, funding, contributions, references) goes from its heading on, line
by line, for as long as each line shows what the heading announces; a heading over anything else
stays with its text.
"""

from __future__ import annotations

import re

_LINE = re.compile(
    r"\s*[-*#>•|\[(]*\s*(?:"
    r"(?:copyright|crown copyright|©|\(c\)|&copy;)\W.{0,160}"
    r"|this (?:article|content|work|page|site) is protected by copyright.{0,120}"
    r"|\W?abstract truncated(?: at \d+ words)?\W{0,3}"
    r"|the pre-publication history for this paper can be accessed here:?.{0,120}"
    r"|(?:the )?(?:online )?version of this article \((?:https?|doi).{0,200}"
    r"|the online version of this article .{0,80}contains (?:supplementary|peer).{0,120}"
    r"|(?:electronic )?supplementary (?:material|data|information)(?: is available)?\W*"
    r"|publisher['’]s note\W.{0,200}|springer nature remains neutral.{0,160}"
    r"|(?:this (?:web)?site|we|our (?:web)?site|our partners) uses? (?:\w+ ){0,2}cookies.{0,240}"
    r"|(?:accept|reject|manage|allow)(?: all)? cookies\W*|cookie (?:policy|settings|preferences)\W*"
    r"|by continuing to (?:use|browse) (?:this|our) (?:web)?site.{0,200}"
    r"|(?:skip|jump) to (?:main |the )?(?:content|navigation|search).{0,20}"
    r"|(?:back|return|go) to (?:the )?top(?: of (?:the )?page)?\W*"
    r"|(?:print|email) this (?:page|article)\W*"
    r"|(?:sign|log) ?in(?: (?:or|/|\|) (?:register|sign ?up|join))?\W*"
    r"|(?:read|see|show|view) more\W*"
    r"|share (?:this|on)(?: (?:page|article|facebook|twitter|x|linkedin|email)){0,2}\W*"
    r"|(?:follow|like) us on (?:\w+\W*){1,4}|(?:previous|next)(?: (?:page|article|chapter))?\W*"
    r"|subscribe to (?:our|the) (?:\w+ ){0,2}newsletter\W*|click here(?: to (?:\w+\W*){1,4})?\W*"
    r"|(?:home|main)(?: *[>»›|/] *[^>»›|/\n.]{1,40}){1,6}"
    r"|page \d+ of \d+\W*|advertisement\W*"
    r"|版权所有.{0,60}|未经(?:授权|许可|允许).{0,40}(?:转载|复制).{0,20}|(?:返回|回到)(?:顶部|首页)\W*"
    r"|(?:上一页|下一页|首页|点击查看更多|分享到.{0,20}|相关阅读|免责声明)\W*"
    r")\s*",
    re.IGNORECASE,
)
_RESERVED = re.compile(r"[^.\n]{0,80}\W{0,3}all rights reserved\W{0,3}", re.IGNORECASE)
# First words of the lines above; a look-up spares most lines the pattern.
_START = re.compile(r"[\W\d_]*(\(c\)|[A-Za-z]+|[\u4e00-\u9fff]{2}|©)", re.IGNORECASE)
_START_WORDS = (
    "copyright crown c © copy this abstract the online version electronic supplementary publisher "
    "springer we our accept reject manage allow cookie by skip jump back return go print email "
    "sign log login signin read see show view share follow like previous next subscribe click home "
    "main page advertisement 版权 未经 返回 回到 上一 下一 首页 点击 分享 相关 免责"
)
_STARTS = frozenset(_START_WORDS.split())
_ADDRESS = re.compile(
    r"\W*(?:(?:e-?mail|correspondence|url|website|internet|web|doi)\W{0,3})?"
    r"(?:https?://\S+|www\.\S+|[\w.+-]+@[\w-]+\.[\w.-]+|doi:\s?10\.\S+)\W*",
    re.IGNORECASE,
)
# A line can be boilerplate only if it starts like one or holds one of these.
_TAIL = re.compile(
    r"(?<=[.!?)\]。])\s*(?:"
    r"\W?ABSTRACT TRUNCATED(?: AT \d+ WORDS)?\W{0,3}"
    r"|(?:[©&óÓ]|\(c\)|c )?\s*(?:19|20)\d\d\s"
    r"(?:(?-i:[A-Z])[\w.&]*\W+|(?:by|and|of|the|on) ){1,9}"
    r"all rights reserved\W{0,3}"
    r"|\(?(?:c ?|crown )?(?:copyright|©|\(c\)(?= ?(?:19|20)\d\d))"
    r"(?:B\.V|S\.A|[^.。\n]){0,80}\.?"
    r"(?:\s*all rights reserved)?\W{0,3}"
    r"|published by (?:elsevier|wiley|springer|oxford|john wiley|the bmj|wolters)"
    r"(?:B\.V|[^.\n]){0,60}\."
    r"|\(?psycinfo database record[^\n]{0,80}"
    r"|all rights reserved\W{0,3}"
    r"|this article is protected by copyright\."
    r")\s*\Z",
    re.IGNORECASE,
)
_TAIL_CUES = ("rights reserved", "copyright", "©", "(c)", "truncated", "published by", "psycinfo")

_SECTION = re.compile(
    r"\s*#{0,6}\s*(?:\d+\.?\s*)?(?:[^\n>]{1,60} > )?\**(?:"
    r"(?P<interest>(?:declaration of |statement of |potential )?(?:competing|conflicts?(?: of)?|"
    r"conflicting|duality of|financial) ?(?:interests?|disclosures?)(?: statement)?|disclosures?"
    r"|利益冲突(?:声明)?)"
    r"|(?P<funding>(?:sources? of )?(?:funding|financial support|support)"
    r"(?: sources?| statement| information)?"
    r"|grants?(?: support)?|基金项目|资助)"
    r"|(?P<thanks>acknowledge?ments?|致谢)"
    r"|(?P<authors>authors?['’]?s? (?:contributions?|information)|作者贡献)"
    r"|(?P<history>pre-publication history|electronic supplementary material|"
    r"supplementary (?:material|data|information)|supporting information)"
    r"|(?P<references>references|bibliography|literature cited|works cited|参考文献)"
    r")\**\s*[::.]?\s*",
    re.IGNORECASE,
)
_ANNOUNCES = re.compile(
    r"interest|disclos|fund|support|grant|cknowl|contribut|information|history|material|data|"
    r"reference|bibliog|cited|参考|致谢|作者|基金|资助|利益",
    re.IGNORECASE,
).search
_SHOWS = {
    "interest": re.compile(
        r"compet(?:ing|itive)|conflicts?\b|interests?\b|disclos|honorari|consult|employ|stock|"
        r"\bfees?\b|declare|sponsor|advisory|speaker|patent|利益|冲突",
        re.I,
    ),
    "funding": re.compile(
        r"\bfund|grants?\b|support|award|foundation|sponsor|financ|fellowship|基金|资助", re.I
    ),
    "thanks": re.compile(
        r"\bthank|grateful|gratitude|acknowledg|indebted|appreciat|感谢|致谢", re.I
    ),
    "authors": re.compile(
        r"manuscript|drafted|conceived|contribut|participated|approved|co-?ordinat|"
        r"performed the|carried out|wrote|professor|lecturer|researcher|fellow\b|作者",
        re.I,
    ),
    "history": re.compile(
        r"pre-publication|accessed here|https?://|doi|supplementa|additional file|available", re.I
    ),
    "references": re.compile(
        r"(?:19|20)\d\d|^\W*\d{1,3}[.\])]\s|\bet al\b|doi|https?://|\b(?:pp?|vol)\. ?\d", re.I
    ),
}
_MOST_LINES = {"interest": 6, "funding": 4, "thanks": 4, "authors": 12, "history": 2}


def strip_boilerplate(text: str) -> tuple[str, bool, bool]:
    """The text without boilerplate, whether such went, and whether a list of references went."""
    listed = False
    kept = text
    if "\n" in text:
        lines = text.split("\n")
        left, listed = _without_sections(lines)
        left = [line for line in left if not _is_boilerplate(line)]
        if len(left) != len(lines):
            kept = "\n".join(left).strip()
    elif _is_boilerplate(text):
        return "", True, False
    kept = _without_tail(kept)
    return kept, kept != text, listed


def _is_boilerplate(line: str) -> bool:
    size = len(line)
    if not 3 < size < 400:
        return False
    start = _START.match(line)
    if start is not None and start[1].lower() in _STARTS and _LINE.fullmatch(line) is not None:
        return True
    if size < 160 and "ights reserved" in line:
        return _RESERVED.fullmatch(line) is not None
    return ("@" in line or "://" in line or "www." in line or "10." in line) and (
        _ADDRESS.fullmatch(line) is not None
    )


def _without_tail(text: str) -> str:
    """Cut the publisher's sentences off the end; those of the author stay whole."""
    cut = text
    for _ in range(20):
        if not _has_cue(cut[-200:].lower()):
            break
        found = _TAIL.search(cut, max(0, len(cut) - 200))
        if found is None or found.start() == 0:
            break
        cut = cut[: found.start()].rstrip()
    return cut


def _has_cue(tail: str) -> bool:
    return any(cue in tail for cue in _TAIL_CUES)


def _without_sections(lines: list[str]) -> tuple[list[str], bool]:
    """The lines outside sections of boilerplate, and whether references were among those."""
    kept: list[str] = []
    listed = False
    place = 0
    while place < len(lines):
        line = lines[place]
        found = _SECTION.fullmatch(line) if 2 < len(line) < 120 and _ANNOUNCES(line) else None
        if found is None:
            kept.append(line)
            place += 1
            continue
        kind = str(found.lastgroup)
        end = _references_end(lines, place) if kind == "references" else _end(lines, place, kind)
        if end == place:
            kept.append(line)
            place += 1
        else:
            listed |= kind == "references"
            place = end
    return kept, listed


def _end(lines: list[str], heading: int, kind: str) -> int:
    """Index after the section's last line; `heading` itself when its text is of another kind."""
    shows, most = _SHOWS[kind], _MOST_LINES[kind]
    end, taken = heading, 0
    for place in range(heading + 1, len(lines)):
        line = lines[place]
        if not line.strip():
            continue
        if taken == most or _SECTION.fullmatch(line) or not shows.search(line):
            break
        end, taken = place + 1, taken + 1
    return end


def _references_end(lines: list[str], heading: int) -> int:
    """As `_end`; a list has 3 entries or more and ends where two lines look like none."""
    shows = _SHOWS["references"]
    end, entries, misses = heading, 0, 0
    for place in range(heading + 1, len(lines)):
        line = lines[place]
        if not line.strip():
            continue
        if shows.search(line) and len(line) < 600:
            entries, misses, end = entries + 1, 0, place + 1
        else:
            misses += 1
        if misses == 2 or _SECTION.fullmatch(line) or line.lstrip().startswith("#"):
            break
    return end if entries >= 3 else heading
