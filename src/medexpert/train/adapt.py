"""Stage 3, adapt: one task, with the very prompt that evaluation scores.

Fed: task examples (template `pubmedqa.lm_eval` and kin), packed. Moves: LoRA by default, or every
weight. Loss: on the label and the end of text. C-Poly will be a further row of `model.adapters`.
"""

from __future__ import annotations

from medexpert.train.instruct import pieces

__all__ = ["pieces"]
