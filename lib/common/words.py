"""Figures, lists and names as they stand in a sentence."""

import re


def plain(value):
    """−0.25: two decimals and a true minus sign."""
    return f"{value:.2f}".replace("-", "−")


def signed(value):
    """+0.25"""
    return f"{value:+.2f}".replace("-", "−")


def literal(name):
    """`name` as a code span of Markdown: letter by letter what it is, whatever it holds (CommonMark 0.31, 6.1)."""
    name = re.sub(r"\s", " ", name)
    fence = "`" * (1 + max(map(len, re.findall("`+", name)), default=0))
    return f"{fence} {name} {fence}"


def join(words):
    """drums, bass and other"""
    words = list(words)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
