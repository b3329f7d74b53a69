"""Scripts and their words: which characters may be a word of their own, because the script has no spaces between words."""

# Thai, Lao, Myanmar, Khmer, kana, Chinese characters.
SPACELESS = (
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3040, 0x30FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0x20000, 0x323AF),
)
_HANGUL = (0xAC00, 0xD7AF)  # written with spaces, but particles follow a word without a space
SINGLE_CHARACTER_WORDS = (*SPACELESS, _HANGUL)


def is_spaceless(character: str) -> bool:
    """Whether a character is of a script written without spaces between words."""
    return _is_among(character, SPACELESS)


def is_single_character_word(character: str) -> bool:
    """Whether a word may end before or after this character, whatever its neighbours are."""
    return _is_among(character, SINGLE_CHARACTER_WORDS)


def _is_among(character: str, ranges: tuple[tuple[int, int], ...]) -> bool:
    return bool(character) and any(low <= ord(character) <= high for low, high in ranges)
