"""Question -> Prediction, text only; the engine is passed in.

`template` is the one renderer (training uses it too), `parse` reads free text, `direct` and `voc`
are strategies, `strategies` is their table, `ask` answers one question of a person; `verify` is
Verification-of-Choice for one question.
"""

from medexpert.prompt.ask import Answer, verify
from medexpert.prompt.asking import PROTOCOLS, Strategy
from medexpert.prompt.strategies import STRATEGIES

__all__ = ["PROTOCOLS", "STRATEGIES", "Answer", "Strategy", "verify"]
