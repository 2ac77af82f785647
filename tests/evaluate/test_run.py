from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from medexpert import manifest
from medexpert.evaluate.compare import compare
from medexpert.records import NO_ANSWER, Prediction, UserError, read_jsonl

