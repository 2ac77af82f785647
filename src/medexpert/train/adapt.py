"""Stage 3, adapt: one task or several, with the very prompt that evaluation scores.

Fed: task examples (template `pubmedqa.lm_eval` and kin), packed. Moves: LoRA by default, C-Poly, or
every weight. Loss: on the label and the end of text.
"""

from __future__ import annotations

from medexpert.train.instruct import pieces

__all__ = ["pieces"]
