"""Model or endpoint -> completions and log-probabilities.

To add an engine: `engines/<name>.py` with a class that keeps the protocol of `base.py`, and a line
in tests/engines/test_conformance.py. Importing this package does not import torch.
"""

from medexpert.engines.base import Completion, Engine, PromptError, TextScore

__all__ = ["Completion", "Engine", "PromptError", "TextScore"]
