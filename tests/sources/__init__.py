"""Claims of the source articles, row by row of the project's table of claims.

If a source is wrong, the test shows what is true. Rows 50, 55 and 64 to 66, on networks,
are in `tests/experiments`.
"""
