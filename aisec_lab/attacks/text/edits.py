"""Putting another word into a text."""

import string


def swapped(text: str, place: int, token: str) -> str:
    """The text with another word.

    Args:
        text: words that whitespace separates.
        place: which of them goes, from 0.
        token: what comes in, in lower case and without whitespace; it takes over capitals and punctuation: the first
            letter's, or all of a word in capitals.

    Returns:
        As many words, the others unchanged, one space between them.
    """
    words = text.split()
    core = words[place].strip(string.punctuation) or words[place]
    if core.isupper() and len(core) > 1:
        new = token.upper()
    else:
        new = token[0].upper() + token[1:] if core[0].isupper() else token
    words[place] = words[place].replace(core, new, 1)
    return " ".join(words)


def differing(before: str, after: str) -> list[int]:
    """The places at which two texts of equally many words have different words."""
    pairs = zip(before.split(), after.split(), strict=True)
    return [place for place, (old, new) in enumerate(pairs) if old != new]
