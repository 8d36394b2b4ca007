"""Longer examples of using jaxnorm; `python -m experiments NAME` runs one."""
