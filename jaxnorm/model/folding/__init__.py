"""Folding: norms with fixed statistics made part of the layers beside them."""
