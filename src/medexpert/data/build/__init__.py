"""Recipe -> the data of its stages: planned, cleaned in shards, deduplicated, mixed, written."""

from medexpert.data.build.digests import benchmark_digests, source_digests
from medexpert.data.build.inspection import Inspection, inspect_sources
from medexpert.data.build.run import build

__all__ = ["Inspection", "benchmark_digests", "build", "inspect_sources", "source_digests"]
