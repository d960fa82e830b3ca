"""Text of others, as names in files, in messages of ours."""

from collections.abc import Collection

LISTED = 4  # names in a message


def shortened(names: Collection[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - LISTED
    return ", ".join([*names][:LISTED]) + (f" and {more} more" if more > 0 else "")


def printable(text: str) -> str:
    """`text` with everything that would steer a terminal or break a line, as ESC or a newline, written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
