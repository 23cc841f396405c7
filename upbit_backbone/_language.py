"""Language: whether people are spoken to in Korean, and a text of ours in it.

The code writes English; where Korean is asked for, a text is translated when somebody looks at it, by the table in
`_korean`, which is not loaded before. What was filled into a text is found by the words around it, so that whoever
raises an error need not know of this.
"""

from __future__ import annotations

import os
import re
from functools import cache
from typing import Final

VARIABLE: Final = "UPBIT_BACKBONE_LANGUAGE"
_DEEPEST: Final = 6  # texts within texts, such as why the last attempt failed
_KOREAN_OF_WINDOWS: Final = 0x12  # the primary language of its numbers for languages


def is_korean() -> bool:
    """Whether UPBIT_BACKBONE_LANGUAGE, or else the locale's LC_ALL, LC_MESSAGES or LANG, says Korean."""
    for name in (VARIABLE, "LC_ALL", "LC_MESSAGES", "LANG"):
        if word := os.environ.get(name):
            return word.lower().startswith("ko")
    return os.name == "nt" and _language_of_windows() & 0x3FF == _KOREAN_OF_WINDOWS


@cache
def _language_of_windows() -> int:
    import ctypes  # Windows names no locale in the environment

    try:
        return int(ctypes.windll.kernel32.GetUserDefaultUILanguage())  # type: ignore[attr-defined, unused-ignore]
    except (AttributeError, OSError):
        return 0


def spoken(text: str) -> str:
    """`text`, one of ours, in the language of whoever reads it."""
    return in_korean(text) if is_korean() else text


def in_korean(text: str) -> str:
    """`text`, one of ours, in Korean; what is not in the catalogue stays as it is."""
    return _translated(text, 0)


def word(text: str) -> str:
    """`text`, a heading or a label of ours that stands alone, in the language of whoever reads it."""
    if not is_korean():
        return text
    from ._korean import WORDS

    return WORDS.get(text, text)


def told(pattern: str, *values: object) -> str:
    """`pattern`, a piece of a report with {} where `values` go, in the language of whoever reads it.

    Such pieces are short ("{} failed"): looked for in other texts, they would be found where nobody meant them.
    """
    if is_korean():
        from ._korean import REPORTS

        pattern = REPORTS.get(pattern, pattern)
    return pattern.format(*values)


def _translated(text: str, depth: int) -> str:
    if depth > _DEEPEST:
        return text
    torn = None
    for own, english, korean in _in_turn():
        # Looked for by its own words first: nearly every pattern is out after that, and is never compiled.
        if own not in text or (match := _pattern(english).fullmatch(text)) is None:
            continue
        if all(each.count("(") == each.count(")") for each in match.groups()):
            return _filled(korean, match, depth)
        torn = torn or (korean, match)  # as a rule the words of a text within brackets, taken for the whole one's
    for mark, korean_mark in (("; ", ". "), (": ", ": ")):
        head, found, tail = text.partition(mark)
        if found:
            halves = _translated(head, depth + 1), _translated(tail, depth + 1)
            if halves != (head, tail):
                return korean_mark.join(halves)
    return text if torn is None else _filled(*torn, depth)


def _filled(korean: str, match: re.Match[str], depth: int) -> str:
    return korean.format(*(_translated(each, depth + 1) for each in match.groups()))


@cache
def _in_turn() -> list[tuple[str, str, str]]:
    """(its longest piece, English, Korean); those with the most words first, which say most exactly what is meant."""
    from ._korean import KOREAN

    in_turn = sorted(KOREAN.items(), key=lambda pair: -len(pair[0].replace("{}", "")))
    return [(max(english.split("{}"), key=len), english, korean) for english, korean in in_turn]


@cache
def _pattern(english: str) -> re.Pattern[str]:
    return re.compile(re.escape(english).replace(r"\{\}", "(.*?)"), re.DOTALL)
