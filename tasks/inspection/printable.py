"""Text that a model wrote, made safe to show: a terminal and a page get no characters that nobody sees."""


def printable(text: str) -> str:
    """Show control characters, direction marks and the like by their codes instead of sending them on."""
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)
