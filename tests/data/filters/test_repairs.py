"""What is repaired, what is left alone, and that repairing twice changes nothing more."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medexpert.data import filters
from medexpert.data.filters import Settings, cleaned_with_changes
from medexpert.data.filters.boilerplate import strip_boilerplate
from medexpert.data.filters.markup import unmark, unwrap

PIECES = st.sampled_from(
    [
        "&amp;lt;b&gt;",
        "&#96;",
        "&#0;",
        "<b>",
        "</b",
        "<br/>",
        "<p class='a'>",
        "<",
        ">",
        "&",
        "lt;",
        "{{a|b}}",
        "[[x|y]]",
        "'''",
        "== H ==",
        "](http://a)",
        "[t",
        "`",
        "```",
        "\\x",
        "\\textit{a}",
        "\\begin{document}",
        "\\documentclass",
        "é",
        "é",
        "Ã©",
        "â€™",
        "�",
        "鐨勬",
        "锛",
        "\u200b",
        "\xa0",
        "\r\n",
        "\n\n\n",
        " \n",
        "\x85",
        "�",
        "© 2012 X Ltd.",
        "a cat sat. ",
        " @-@ ",
        "Funding\n",
        "supported by a grant\n",
        "References\n",
        "1. A. 2001.\n",
        "中文，",
        "—",
    ]
)
TEXTS = st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=14).map("".join))


@given(TEXTS)
@settings(deadline=None)
def test_clean_is_idempotent(text: str) -> None:
    once = filters.clean(text)
    assert filters.clean(once) == once


@given(TEXTS, st.booleans(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_repair_is_idempotent_and_names_its_changes(text: str, prose: bool, lines: bool) -> None:
    once, changes = cleaned_with_changes(text, prose=prose, lines=lines)
    assert set(changes) <= set(filters.CHANGES)
    assert bool(changes) == (once != text)
    assert cleaned_with_changes(once, prose=prose, lines=lines) == (once, ())


@settings(deadline=None)
@given(st.text(alphabet=st.characters(codec="ascii", categories=["L", "N", "Zs"]), max_size=200))
def test_plain_text_is_left_alone(text: str) -> None:
    assert cleaned_with_changes(text)[0] == text.strip()


def test_clean() -> None:
    assert filters.clean("e\u0301te\u0301\r\nb\rc\x00\ufeff\td ") == "été\nb\nc\td"
    assert filters.clean("half \ud800 of a pair") == "half  of a pair"
    assert filters.clean("5\xa0mg\u200b of so\xaddium\u2028next") == "5 mg of sodium\nnext"


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ("â\x80\x9cquotedâ\x80\x9d", "“quoted”"),
        ("It wasn’t: “Iâ€™m well”", "It wasn’t: “I’m well”"),
        ("pain and fÃ©ver of 38.5Â°C", "pain and féver of 38.5°C"),
        ("å\x8f\x91ç\x83\xadä¸\x89å¤©", "发热三天"),
        ("naïve Ångström café, α-blocker ±5 °C", "naïve Ångström café, α-blocker ±5 °C"),
    ],
)
def test_mojibake_is_undone_only_where_certain(broken: str, whole: str | None) -> None:
    assert filters.clean(broken) == (broken if whole is None else whole)


def test_chinese_read_as_gbk_is_undone() -> None:
    text = "口服，静注，外用，肌注，"
    broken = text.encode().decode("gb18030", "strict")
    assert filters.clean(broken) == text


def test_repaired_mojibake_is_a_change_and_no_damage() -> None:
    text = "The patientâ€™s sonâ€™s doctorâ€™s note was lost"
    assert filters.damaged(text) is None
    assert cleaned_with_changes(text) == (
        "The patient’s son’s doctor’s note was lost",
        ("mojibake_repaired",),
    )


def test_clean_value_and_strings_go_through_lists_and_objects() -> None:
    value = {"a": ["x\x00", {"b": "y "}], "n": 3}
    assert filters.clean_value(value) == {"a": ["x", {"b": "y"}], "n": 3}
    assert filters.strings(value) == ["x\x00", "y "]


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        ("all <i>p</i> &lt;0.05, R<sub>s</sub>", "all p <0.05, Rs"),
        ("<div class='x'>One</div><p>Two</p>", "\nOne\n\nTwo\n"),
        ("<script>var a = '<b>';</script>Text", "Text"),
        ("<jats:p>Aim.</jats:p> <xref ref-type='bibr'>1</xref>", "Aim. 1"),
        ("\\documentclass[12pt]{minimal}\\begin{document}$$x$$\\end{document} mmHg", "$$x$$ mmHg"),
        ("a \\textit{very} \\emph{low} dose~\\cite{a}", "a very low dose"),
        ("'''Aspirin''' is a [[drug|medicine]].{{cite|x}}", "Aspirin is a medicine."),
        ("see [the page](https://a.org/b) and ![x](/i.png)", "see the page and x"),
        ("self @-@ help, 5 @.@ 2", "self-help, 5.2"),
        ("<目录>草部\n\\x《某书》\\x云", "草部\n《某书》云"),
        ("ask online --> <link>", "ask online"),
    ],
)
def test_markup_becomes_text(marked: str, plain: str) -> None:
    assert unmark(marked) == plain


@pytest.mark.parametrize(
    "text",
    [
        "rose from <VGPR before to >VGPR after, <5% of cases, p <0.001, CI>1",
        "9-[[2-methoxy-4-[(methyl)amino]phenyl]amino]-5-[[2'-(2H)]]",
        "free calcium ([Ca(2+)](i)) and 0.61 [95% CI: 0.31](p = 0.16)",
        "`<b>` makes bold:\n```html\n<table><tr>&lt;\n```",
        "it cost $15 or $20, AT&T and R&D; C:\\data",
        "cut &#0; and &nosuchname; stay",
    ],
)
def test_text_that_looks_like_markup_stays(text: str) -> None:
    assert unmark(text) == text


def test_wrapped_chinese_is_joined_only_inside_a_sentence() -> None:
    line = "黄" * 35
    assert unwrap(f"{line} \n连于下行。 \n\n\n\n另段") == f"{line}连于下行。\n\n另段"
    assert unwrap(f"{line}。 \n另句") == f"{line}。\n另句"
    assert unwrap("短行 \n另行") == "短行\n另行"


BOILERPLATE = [
    "Copyright © 2012 The Authors.",
    "All rights reserved.",
    "This article is protected by copyright. All rights reserved.",
    "https://example.org/a/b?c=1",
    "E-mail: a.b@example.org",
    "We use cookies to give you the best experience.",
    "Skip to main content",
    "Home > Health > Drugs",
    "Back to top",
    "版权所有 某出版社",
    "The pre-publication history for this paper can be accessed here:",
]
CONTENT = st.lists(
    st.sampled_from(
        [
            "Of 20 patients, 5 were in pain.",
            "The dose was 5 mg.",
            "Results",
            "血压下降。",
            "Methods:",
            "Home visits were made by nurses.",
            "We used cookies as the test meal.",
            "Funding is low.",
            "The support of a family matters.",
            "References to pain were coded.",
            "- 5 mg, twice",
        ]
    ),
    min_size=1,
    max_size=8,
)


@settings(deadline=None)
@given(CONTENT, st.lists(st.sampled_from(BOILERPLATE), max_size=5), st.randoms())
def test_lines_of_boilerplate_go_and_content_stays(content, junk, random) -> None:  # type: ignore[no-untyped-def]
    places = sorted(random.randrange(len(content) + 1) for _ in junk)
    lines = list(content)
    for place, line in zip(reversed(places), junk, strict=True):
        lines.insert(place, line)
    text = "\n".join(lines)
    assert strip_boilerplate(text)[0] == "\n".join(content)


@settings(deadline=None)
@given(CONTENT)
def test_content_under_an_announcing_heading_stays(content: list[str]) -> None:
    plain = [line for line in content if not line.startswith(("Funding", "The support"))]
    text = "\n".join(["Competing interests", *plain])
    assert strip_boilerplate(text) == (text, False, False)


@pytest.mark.parametrize(
    "tail",
    [
        "(ABSTRACT TRUNCATED AT 250 WORDS)",
        " (ABSTRACT TRUNCATED)",
        " © 2014 Elsevier B.V. All rights reserved.",
        " 2005 Elsevier Ltd. All rights reserved.",
        " Copyright © 2017 John Wiley & Sons, Ltd.",
        " This article is protected by copyright. All rights reserved.",
        " Published by Elsevier Ltd.",
    ],
)
def test_the_publishers_last_sentence_goes(tail: str) -> None:
    text = "Pain was less in 5 of 20. The right to reserve a bed was kept by the ward."
    assert strip_boilerplate(text + tail) == (text, True, False)


def test_sections_go_with_their_headings() -> None:
    text = "\n".join(
        [
            "Discussion",
            "Pain fell.",
            "Competing interests",
            "The authors declare none exist.",
            "Authors' contributions",
            "AB drafted the manuscript.",
            "Conclusion",
            "It works.",
            "References",
            "1. Author A. Title. 2001.",
            "2. Author B. Title. 2002.",
            "3. C. 2003.",
        ]
    )
    left = "Discussion\nPain fell.\nConclusion\nIt works."
    assert strip_boilerplate(text) == (left, True, True)
    assert cleaned_with_changes(text) == (left, ("references_removed",))
    assert cleaned_with_changes(text, Settings(boilerplate=False)) == (text, ())
