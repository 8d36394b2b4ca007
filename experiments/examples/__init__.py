"""Examples of use at length; `python -m experiments NAME` runs one."""
