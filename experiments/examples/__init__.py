"""Longer examples of how to use jaxnorm; `python -m experiments NAME` runs one."""
