"""An objective ("to determine whether X reduces Y") -> a yes/no question, or the reason why not."""

from __future__ import annotations

import re

from medexpert.data.construct.morphology import word_set
from medexpert.data.construct.titles import Asked, ask_clause

_WHETHER = re.compile(
    r"\b(?:(?:determin|assess|examin|test|investigat|evaluat|explor|establish|ascertain|clarify|"
    r"study|studie|know|see|find out|address|verif|analy[sz]|ask|compar)\w*\s+(?:the\s+\w+\s+)?"
    r"(?:whether|if)|(?:the hypothesis|hypothesi[sz]ed|the hypotheses|hypothesis was) that)\s+",
    re.IGNORECASE,
)
_END = re.compile(
    r"(?:[.;?]\s|[.;?]$|,?\s+and (?:to|whether|if|that|also)\b|,?\s+as well as (?:to|whether)\b|"
    r",?\s+and \w+ed (?:its|the|their|whether)\b|\s+in order to\b|\s+\(\s*[ivx2]+\)|"
    r",\s+(?:to|we|in order to|which|because|since)\b)"
)

_VAGUE = word_set(
    "it they this these those there such we our he she one two three any either both all"
)
_LISTED = re.compile(r"(?:^|\s)\(?(?:[a-c1-3]|i{1,3})\)")
MAX_WORDS = 45


def ask_objective(objective: str) -> Asked | str:
    """The question in an objective, which states no answer (`label` is "").

    Reasons: no_whether (the objective does not ask yes or no), long_objective, listed_objectives,
    vague_subject, and those of a statement title.
    """
    match = _WHETHER.search(objective)
    if match is None:
        return "no_whether"
    clause = objective[match.end() :]
    end = _END.search(clause)
    clause = (clause[: end.start()] if end else clause).strip(" ,.;:")
    words = clause.split()
    if len(words) > MAX_WORDS:
        return "long_objective"
    if _LISTED.search(clause):
        return "listed_objectives"
    if not words or words[0].lower() in _VAGUE:
        return "vague_subject"
    made = ask_clause(clause)
    if isinstance(made, str):
        return made
    return Asked(made.question, "", False, "objective")
