"""Characters that an output lacks: nothing dies of them.

A redirected stdout on Korean Windows speaks cp949, on a Western one cp1252, under LC_ALL=C ASCII. None of them knows a
check mark, so a report died half-way, and the file that was to be sent for help stayed empty.
"""

from __future__ import annotations

import codecs
import json
import re
import sys
from typing import Any, TextIO

HANDLER = "upbit-backbone.readable"

# As a reader would spell them; what is not here is written as its code, so that nothing is lost.
SPELLINGS = str.maketrans(
    {
        "✔": "+", "✘": "x", "•": "*", "●": "*", "·": "-", "–": "-", "—": "-", "−": "-", "…": "...", "→": "->",
        "⟷": "<->", "“": '"', "”": '"', "‘": "'", "’": "'", "×": "x", "±": "+/-", "µ": "u", "≥": ">=", "≤": "<=",
        "\xa0": " ", **dict.fromkeys("▏▎▍▌", " "), **dict.fromkeys("▋▊▉█▇▆▅", "#"), **dict.fromkeys("▁▂", "."),
        **dict.fromkeys("▃▄", "="), **dict.fromkeys("─━╌╍", "-"), **dict.fromkeys("│┃", "|"),
        **dict.fromkeys("┌┐└┘├┤┬┴┼┏┓┗┛┡┩╇╭╮╯╰", "+"),
    }
)  # fmt: skip

# What a terminal might obey, and single halves of pairs, which no encoding knows.
_HARMFUL = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def _readable(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(map(_spelt, missing)), error.end


def _spelt(character: str) -> str:
    spelling = character.translate(SPELLINGS)
    return spelling if spelling.isascii() else spelling.encode("ascii", "backslashreplace").decode("ascii")


codecs.register_error(HANDLER, _readable)


def let_nothing_die() -> None:
    """From now on stdout and stderr spell out what their encoding lacks. Twice is as once."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # neither a test's StringIO nor the None of a program without a console
            stream.reconfigure(errors=HANDLER)


def as_written(text: str, output: TextIO) -> str:
    """`text` with what the encoding of `output` lacks spelt out, for those who write to its bytes."""
    encoding = getattr(output, "encoding", None) or "utf-8"
    return text.encode(encoding, HANDLER).decode(encoding)


def json_line(value: Any, output: TextIO) -> str:
    """`value` as one line of JSON that keeps Hangul readable where `output` can show it.

    Nothing in it can do anything to a terminal, and what the encoding lacks is written as JSON's own escape: any reader
    of JSON gets the same text.
    """
    text = _HARMFUL.sub(_escaped, json.dumps(value, ensure_ascii=False))
    try:
        text.encode(getattr(output, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, ensure_ascii=True)
    return text


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match.group()):04x}"
