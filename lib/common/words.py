"""Numbers, lists and names as text of a sentence."""

import re


def plain(value):
    """The number as text with two decimals and a true minus sign: −0.25."""
    return f"{_rounded(value):.2f}".replace("-", "−")


def signed(value):
    """The same with a sign: +0.25."""
    return f"{_rounded(value):+.2f}".replace("-", "−")


def _rounded(value):
    """`value` with two decimals, and no minus before zero."""
    return round(value, 2) + 0.0


def literal(name):
    """`name` as a Markdown code span, so that none of its characters is markup (CommonMark 0.31, 6.1)."""
    name = re.sub(r"\s", " ", name)
    fence = "`" * (1 + max(map(len, re.findall("`+", name)), default=0))
    return f"{fence} {name} {fence}"


def join(words):
    """The words as a list in a sentence: drums, bass and other."""
    words = list(words)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
