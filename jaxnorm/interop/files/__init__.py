"""Reads weights from files; the library of each format is imported when it is needed."""

from jaxnorm.interop.files.reading import read_weights

__all__ = ["read_weights"]
