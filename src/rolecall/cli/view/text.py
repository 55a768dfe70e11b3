"""Text for a terminal."""


def visible(text: str) -> str:
    """The text, with whatever a terminal would act on written as an escape; a name may hold anything."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def visible_lines(text: str) -> str:
    """The same for a text of several lines."""
    return "\n".join(map(visible, text.split("\n")))
