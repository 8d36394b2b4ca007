"""Arithmetic on arrays, independent of any framework and without running statistics."""
