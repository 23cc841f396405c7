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
_DEEPEST: Final = 4  # texts within texts, such as why the last attempt failed
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
    return _translated(text, 0) if is_korean() else text


def _translated(text: str, depth: int) -> str:
    if depth > _DEEPEST:
        return text
    for pattern, korean in _patterns():
        if (match := pattern.fullmatch(text)) is not None:
            return korean.format(*(_translated(each or "", depth + 1) for each in match.groups()))
    head, colon, tail = text.partition(": ")
    return f"{head}{colon}{_translated(tail, depth + 1)}" if colon else text


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    """What to look for, those with the most words of their own first: they say what is meant most exactly."""
    from ._korean import KOREAN

    in_turn = sorted(KOREAN.items(), key=lambda pair: -len(pair[0].replace("{}", "")))
    return tuple((re.compile(re.escape(english).replace(r"\{\}", "(.*?)"), re.DOTALL), ko) for english, ko in in_turn)
