"""Any OpenAI-compatible endpoint: hosted models, vLLM, llama.cpp's server, Ollama.

settings → client (pace, loop, cache) → probe (what the endpoint offers) → engine, labels.
`requests` writes what is sent, `answers` reads what comes back; both are plain functions.
"""

from medexpert.engines.http.engine import HttpEngine
from medexpert.engines.http.settings import HttpSettings, settings_from

__all__ = ["HttpEngine", "HttpSettings", "settings_from"]
