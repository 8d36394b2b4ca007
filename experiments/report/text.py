"""Plain text as HTML."""

import html
import re


def escape(text: str) -> str:
    """Text that stands for itself, in an element or an attribute."""
    return html.escape(text, quote=True)


def prose(text: str) -> str:
    """Text in which backticks mark code, and papers are named by their arXiv number."""
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return re.sub(
        r"\b(\d{4}\.\d{5})\b", r'<a href="https://arxiv.org/abs/\1">\1</a>', marked
    )


def slug(word: str) -> str:
    """A name for a class or an id."""
    return word.lower().replace(" ", "-")


def pill(word: str) -> str:
    """A verdict, as a word on its colour."""
    return f'<span class="pill {slug(word)}">{escape(word)}</span>'
