"""Weights in, weights out: open a base model, add an adapter, save, verify, merge.

Nothing heavy is imported until a function needs it, so that the catalogue can be listed at once.
"""
