"""Folding: merges norms with fixed statistics into the layers beside them."""
