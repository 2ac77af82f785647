"""Presidio's recognisers, each shown only the pieces of a text that can hold what it looks for.

Presidio's own engine tokenises every text and runs every pattern over all of it (and wants a spaCy
model it would download). The recognisers are called here without the engine. They find e-mail
addresses, web addresses, IP addresses, telephone numbers, US social security numbers, NHS numbers,
credit cards, IBANs and DEA licence numbers, with their own checks (check digits, numbering plans).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medexpert.data.privacy.rules import Rule, Span, digits_of
from medexpert.records import UserError

INSTALL = "pip install 'medexpert[phi]'"
_LOGGERS = (
    "presidio-analyzer",
    "presidio_analyzer",
    "tldextract",
    "phonenumbers",
    "spacy",
    "filelock",
)
_LEAST = 0.4  # presidio's score; its "very weak" patterns (any nine digits) stay below
_REGIONS = {"zh": ("CN", "HK", "TW", "US"), "en": ("US", "GB", "AU", "IN", "IE")}
_TLDS = "com|org|net|edu|gov|mil|int|info|biz|io|uk|cn|de|fr|eu|ca|au|in|jp|ch|nl|se|es|it|us|hk|tw"
# The pieces of a text that each recogniser is shown.
_EMAIL = re.compile(r"[^\s<>()\[\],;:\"，。；：、（）]{1,64}@[\w.\-]{3,255}")
_HOST = re.compile(
    rf"(?<![\w@.\-])(?:[a-z0-9\-]{{1,63}}\.){{1,5}}(?:{_TLDS})(?![\w@])"
    r"(?:/[!-~]*(?<![.,;:)\]'\"]))?"
)
_IP4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.])")
_IP6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){3,7}[0-9A-Fa-f]{1,4}(?![\w:])")
_PHONE = re.compile(r"(?<![\w.,/+\-])(?:\+|00)?\(?\d[\d().\- \t]{5,20}\d(?![\w/]|[.,\-]\d)")
_SSN = re.compile(r"(?<![\w.\-])\d{3}[-. ]\d{2}[-. ]\d{4}(?![\w\-]|\.\d)")
_NHS = re.compile(r"(?<![\w.\-])\d{3}[- ]?\d{3}[- ]?\d{4}(?![\w\-]|\.\d)")
_CARD = re.compile(r"(?<![\w.])\d(?:[ -]?\d){12,18}(?![\w.])")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}[ ]?[A-Z0-9]{4}(?:[ ]?[A-Z0-9]{2,4}){2,7}\b")
_DEA = re.compile(r"\b[A-HJ-MPR-UX][A-Z9]\d{7}\b")


@dataclass(frozen=True)
class Probe:
    """One recogniser of the library and the pattern of the pieces it is shown."""

    kind: str
    recogniser: Any
    pieces: re.Pattern[str]
    needs: tuple[str, ...] = ()
    least_digits: int = 0

    def spans(self, text: str, lowered: str) -> Iterator[Span]:
        """What the recogniser finds in the pieces of `text`."""
        if self.needs and not any(word in lowered for word in self.needs):
            return
        entities = self.recogniser.supported_entities
        for piece in self.pieces.finditer(text):
            value = piece.group()
            if self.least_digits and not self.least_digits <= len(digits_of(value)) <= 19:
                continue
            for found in self.recogniser.analyze(value, entities, None):
                if found.score >= _LEAST:
                    yield Span(piece.start() + found.start, piece.start() + found.end, self.kind)


def silence() -> None:
    """Nothing that these libraries see may reach a log, at any level."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def probes(lang: str) -> tuple[Probe, ...]:
    """The recognisers in use. Raises UserError with the install line when presidio is absent."""
    silence()
    try:
        import presidio_analyzer.predefined_recognizers as library
        import tldextract
    except ImportError as error:
        raise UserError(
            f"redaction needs presidio-analyzer ({error.name} is missing): {INSTALL}"
        ) from None
    suffixes = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)  # the list it ships with

    def known_domain(self: Any, pattern_text: str) -> bool:
        return bool(suffixes(pattern_text).top_domain_under_public_suffix)

    # The library's own check calls tldextract's default, which fetches the list from the network.
    email = type("Email", (library.EmailRecognizer,), {"validate_result": known_domain})
    url = type("Url", (library.UrlRecognizer,), {"validate_result": known_domain})
    phone = library.PhoneRecognizer(
        supported_regions=_REGIONS.get(lang, ("US", "GB", "CN")), leniency=2
    )
    return (
        Probe("EMAIL", email(), _EMAIL, ("@",)),
        Probe("URL", url(), _HOST, tuple(f".{ending}" for ending in _TLDS.split("|"))),
        Probe("IP", library.IpRecognizer(), _IP4),
        Probe("IP", library.IpRecognizer(), _IP6),
        Probe("PHONE", phone, _PHONE, least_digits=7),
        Probe("ID", library.UsSsnRecognizer(), _SSN),
        Probe("ID", library.NhsRecognizer(), _NHS),
        Probe("ACCOUNT", library.CreditCardRecognizer(), _CARD),
        Probe("ACCOUNT", library.IbanRecognizer(), _IBAN),
        Probe("ACCOUNT", library.MedicalLicenseRecognizer(), _DEA),
    )


URLS = (
    Rule(
        "URL",
        re.compile(r"(?i:https?://|ftp://|www\d?\.)[!-~]{3,2000}(?<![.,;:)\]'\"])"),
        ("://", "www"),
    ),
)
"""Full addresses, any host (the library's own pattern leaves out hosts without a known ending)."""

_ENTITY_KINDS = {
    "PERSON": "NAME",
    "PER": "NAME",
    "GPE": "LOCATION",
    "LOC": "LOCATION",
    "FAC": "LOCATION",
}


class Entities:
    """Names and places by a spaCy model the user has on disk."""

    _window = 100_000  # characters; a model's memory grows with the text

    def __init__(self, folder: str) -> None:
        silence()
        path = Path(folder)
        if not (path / "meta.json").is_file() or not (path / "config.cfg").is_file():
            raise UserError(
                "not a spaCy model folder (meta.json and config.cfg expected)", where=folder
            )
        try:
            import spacy

            self._model = spacy.load(path)
        except ImportError as error:
            raise UserError(f"phi_model needs spacy ({error.name} is missing): {INSTALL}") from None
        except (OSError, ValueError, KeyError) as error:
            what = str(error).splitlines()[0][:200]
            raise UserError(f"spaCy cannot load this model ({what})", where=folder) from None

    def spans(self, text: str, lowered: str) -> Iterator[Span]:
        """People and places; the text is read in windows that end at a line or a space."""
        start = 0
        while start < len(text):
            end = min(len(text), start + self._window)
            if end < len(text):
                cut = max(text.rfind("\n", start, end), text.rfind(" ", start, end))
                end = cut + 1 if cut > start else end
            for entity in self._model(text[start:end]).ents:
                kind = _ENTITY_KINDS.get(entity.label_)
                if kind:
                    yield Span(start + entity.start_char, start + entity.end_char, kind)
            start = end
