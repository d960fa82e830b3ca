"""Text of others, as names in files, in messages of ours."""


def printable(text: str) -> str:
    """`text` with everything that would steer a terminal or break a line, as ESC or a newline, written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
