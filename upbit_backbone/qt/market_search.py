"""Search of markets by what people type: code, Korean or English name, or initial consonants (ㅂㅌㅋㅇ). Pure."""

from __future__ import annotations

import unicodedata
from typing import Final

_FIRST_SYLLABLE: Final = 0xAC00
_LAST_SYLLABLE: Final = 0xD7A3
_PER_INITIAL: Final = 588  # syllables that begin alike: 21 vowels with 28 endings, one of which is none
_PER_VOWEL: Final = 28
_INITIALS: Final = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
_ENDINGS: Final = (
    "", "ㄱ", "ㄲ", "ㄱㅅ", "ㄴ", "ㄴㅈ", "ㄴㅎ", "ㄷ", "ㄹ", "ㄹㄱ", "ㄹㅁ", "ㄹㅂ", "ㄹㅅ", "ㄹㅌ", "ㄹㅍ", "ㄹㅎ",
    "ㅁ", "ㅂ", "ㅂㅅ", "ㅅ", "ㅆ", "ㅇ", "ㅈ", "ㅊ", "ㅋ", "ㅌ", "ㅍ", "ㅎ",
)  # fmt: skip
# Keyboards join two consonants into one sign: ㅂㅅ, meant as two initials, is typed as ㅄ.
_PAIRS: Final = {
    "ㄳ": "ㄱㅅ", "ㄵ": "ㄴㅈ", "ㄶ": "ㄴㅎ", "ㄺ": "ㄹㄱ", "ㄻ": "ㄹㅁ", "ㄼ": "ㄹㅂ", "ㄽ": "ㄹㅅ",
    "ㄾ": "ㄹㅌ", "ㄿ": "ㄹㅍ", "ㅀ": "ㄹㅎ", "ㅄ": "ㅂㅅ",
}  # fmt: skip


def initial(character: str) -> str:
    """The consonant that a Korean syllable begins with; any other character as it is."""
    number = ord(character)
    if not _FIRST_SYLLABLE <= number <= _LAST_SYLLABLE:
        return character
    return _INITIALS[(number - _FIRST_SYLLABLE) // _PER_INITIAL]


def matches(typed: str, *texts: str | None) -> bool:
    """Whether what was typed occurs in one of the texts: as it is, or with consonants that stand for syllables.

    Upper and lower case are alike, and so are spaces, hyphens and slashes. Nothing typed matches everything. While a
    syllable is being composed its last consonant may belong to the next one: 빝 finds 비트코인.
    """
    wanted = [_plain(typed), *_unfinished(_plain(typed))]
    return any(_occurs(each, _plain(text)) for text in texts if text for each in wanted)


def _plain(text: str) -> str:
    composed = unicodedata.normalize("NFC", text).casefold()
    kept = "".join(each for each in composed if each not in " -/_")
    return "".join(_PAIRS.get(each, each) for each in kept)


def _unfinished(typed: str) -> list[str]:
    """`typed` with the ending of its last syllable as the beginning of the next."""
    number = ord(typed[-1]) - _FIRST_SYLLABLE if typed else -1
    if not 0 <= number <= _LAST_SYLLABLE - _FIRST_SYLLABLE or not number % _PER_VOWEL:
        return []
    ending = number % _PER_VOWEL
    whole, last = _ENDINGS[ending][:-1], _ENDINGS[ending][-1]
    return [typed[:-1] + chr(_FIRST_SYLLABLE + number - ending + _ENDINGS.index(whole)) + last]


def _occurs(wanted: str, text: str) -> bool:
    if wanted in text:
        return True
    length = len(wanted)
    return any(_alike(wanted, text[place : place + length]) for place in range(len(text) - length + 1))


def _alike(wanted: str, part: str) -> bool:
    return all(
        each == other or (each in _INITIALS and each == initial(other))
        for each, other in zip(wanted, part, strict=True)
    )
