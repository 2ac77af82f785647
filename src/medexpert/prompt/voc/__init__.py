"""Verification-of-Choice: explain every choice as if it were right, then verify, then decide.

`strategy` is the method and its options, `rationales` the explanations, `verdict` the passes that
weigh them, `controls` what shows whether the explanations matter, `worked` the solved items shown
before a question, `cost` the tokens a question costs. docs/voc.md tells how to use it.

The name and the two steps are the paper's (arXiv 2312.01040, abstract); wording, filters, variants
and controls are this project's own.
"""

from medexpert.prompt.voc.rationales import Rationale, fault
from medexpert.prompt.voc.strategy import VARIANTS, Voc

__all__ = ["VARIANTS", "Rationale", "Voc", "fault"]
