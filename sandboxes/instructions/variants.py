"""The eight variants of a text that a loose verdict tries (IFEval, section 2.2)."""


def variants(text: str) -> list[str]:
    """Return the text unchanged, without its first line, last line, and both; and each of these without asterisks."""
    lines = text.split("\n")
    cut = [text, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return list(dict.fromkeys([*cut, *(one.replace("*", "") for one in cut)]))
