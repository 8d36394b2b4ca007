"""Types of command-line arguments, which say what is wrong with a text.

Needs only Python, so that code on a borrowed machine can use it, too.
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path


def path(text: str) -> Path:
    """Returns a path, which must not be empty: that would be the current folder.

    >>> path("results")
    PosixPath('results')
    """
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no path; for the current folder, give '.'"
        )
    return Path(text)


def count(most: int, least: int = 1) -> Callable[[str], int]:
    """Returns a function that reads a whole number within these limits.

    >>> count(10)("3")
    3
    """

    def read(text: str) -> int:
        # Longer texts are not converted: Python refuses those of over 4,300 digits.
        number = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else -1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(
                f"{_short(text)} is not a whole number from {least} to {most:,}"
            )
        return number

    return read


def seconds(text: str) -> float:
    """Returns a time above 0.

    >>> seconds("1.5")
    1.5
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(
            f"{_short(text)} is not a number of seconds above 0"
        )
    return value


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
