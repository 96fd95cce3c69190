"""Figures and lists as they stand in a sentence."""


def plain(value):
    """−0.25: two decimals and a true minus sign."""
    return f"{value:.2f}".replace("-", "−")


def signed(value):
    """+0.25"""
    return f"{value:+.2f}".replace("-", "−")


def join(words):
    """drums, bass and other"""
    words = list(words)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
