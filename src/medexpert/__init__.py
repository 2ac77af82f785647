"""medexpert: three-stage medical adaptation of open LLMs, with Verification-of-Choice."""

from medexpert._version import __version__
from medexpert.records import (
    NO_ANSWER,
    Document,
    Example,
    Prediction,
    Question,
    UserError,
)

__all__ = ["NO_ANSWER", "Document", "Example", "Prediction", "Question", "UserError", "__version__"]
