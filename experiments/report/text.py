"""Converts plain text to HTML."""

import html
import re


def escape(text: str) -> str:
    """Escapes text for use in an element or an attribute."""
    return html.escape(text, quote=True)


def prose(text: str) -> str:
    """Marks code in backticks, and links arXiv numbers."""
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return re.sub(
        r"\b(\d{4}\.\d{5})\b", r'<a href="https://arxiv.org/abs/\1">\1</a>', marked
    )


def slug(word: str) -> str:
    """Returns a name for a class or an id."""
    return word.lower().replace(" ", "-")


def pill(word: str) -> str:
    """Returns a verdict as a word on its colour."""
    return f'<span class="pill {slug(word)}">{escape(word)}</span>'
