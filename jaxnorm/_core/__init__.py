"""Arithmetic on arrays, independent of any framework and of running statistics."""
