"""Benchmark items out of every training source: by id, then by text.

`prepare` reads the benchmarks once and writes an index; `Quarantine.open` loads it in every worker;
`hit` answers for one record. What is matched and why: docs/quarantine.md.
"""

from medexpert.data.quarantine.ids import LISTS, as_pmid, hit, load, pmids
from medexpert.data.quarantine.match import KINDS, Hit, Probe, Quarantine
from medexpert.data.quarantine.prepare import index_of, prepare
from medexpert.data.quarantine.report import Found, Tally

__all__ = [
    "KINDS",
    "LISTS",
    "Found",
    "Hit",
    "Probe",
    "Quarantine",
    "Tally",
    "as_pmid",
    "hit",
    "index_of",
    "load",
    "pmids",
    "prepare",
]
