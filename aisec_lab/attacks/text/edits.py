"""Replacing a word of a text."""

import string


def replace_word(text: str, place: int, token: str) -> str:
    """Replace one word of a text.

    Args:
        text: words separated by whitespace.
        place: index of the word to replace, from 0.
        token: the new word, in lower case, without whitespace and not empty; it takes over the old word's punctuation
            and its capitals, of the first letter or of all letters.

    Returns:
        The text with as many words as before, separated by single spaces.
    """
    words = text.split()
    core = words[place].strip(string.punctuation) or words[place]
    if core.isupper() and len(core) > 1:
        new = token.upper()
    else:
        new = token[0].upper() + token[1:] if core[0].isupper() else token
    words[place] = words[place].replace(core, new, 1)
    return " ".join(words)


def changed_places(before: str, after: str) -> list[int]:
    """Indices of the words in which two texts differ.

    Args:
        before, after: texts of equally many words.

    Returns:
        The indices, from 0, ascending.

    Raises:
        ValueError: texts with different numbers of words.
    """
    pairs = zip(before.split(), after.split(), strict=True)
    return [place for place, (old, new) in enumerate(pairs) if old != new]
