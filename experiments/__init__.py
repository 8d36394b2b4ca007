"""Experiments on what normalisation does: `python -m experiments` lists them."""
