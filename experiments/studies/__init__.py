"""The studies: each module has a `STUDY`, and `python -m experiments NAME` runs it."""
