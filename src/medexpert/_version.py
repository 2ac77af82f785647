"""The one place of the version; equal to the newest heading of CHANGELOG.md (tested)."""

__version__ = "0.5.0"
