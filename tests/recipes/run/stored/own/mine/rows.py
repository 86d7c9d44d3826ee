"""The data of own.yaml."""


def rows(size: int) -> list[dict[str, str]]:
    """Return letters to repeat."""
    return [{"prompt": f"Repeat {letter}", "answer": letter, "demonstration": letter} for letter in "abcdefgh"[:size]]
