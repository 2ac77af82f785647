"""Predictions -> result -> report: numbers that can be trusted, with n, interval and protocol.

`tasks` says what is asked, `run` asks it, `metrics` and `statistics` score it, `compare` tests two
results on the same items, `heldout` measures forgetting, `report` writes the page. No torch here.
"""
