"""Model or endpoint -> completions and log-probabilities.

To add an engine: `engines/<name>.py` with a class that keeps the protocol of `base.py`, a line in
`opening.py` and one in tests/engines/test_conformance.py. Importing this package does not import
torch.
"""

from medexpert.engines.base import (
    Completion,
    Engine,
    NoLogprobs,
    PromptError,
    TextScore,
    Usage,
)

__all__ = ["Completion", "Engine", "NoLogprobs", "PromptError", "TextScore", "Usage"]
