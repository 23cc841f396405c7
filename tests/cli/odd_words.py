"""Odd words as arguments (argument: how many): all must be refused in words that no terminal minds.

Run by test_asking.py in a process of its own, because the command line changes signal handlers and logging.
"""

from __future__ import annotations

import contextlib
import io
import random
import sys

from upbit_backbone.cli.app import run

SEED = 7
ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
LETTERS = "KRW-BTCkrw/._,:; \x1b[]\x00\x07\x9b\n\r\u2028\u202e한글💥0123456789%&?#@\\'\""
HARMFUL = set("\x1b\x00\x07\x9b\u2028\u202e")
COMMANDS = [
    ["ticker"],
    ["book"],
    ["trades"],
    ["explain", "ticker"],
    ["watch"],
    ["replay"],
    ["markets", "--quote"],
    ["candles", "KRW-BTC"],
    ["candles", "KRW-BTC", "1m", "--start"],
]


def main() -> None:
    rng = random.Random(SEED)
    for number in range(ROUNDS):
        word = "".join(rng.choices(LETTERS, k=rng.randint(1, 40)))
        command = rng.choice(COMMANDS)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = run([*command, word])
        text = printed.getvalue()
        is_harmless = not set(text) & HARMFUL and "Traceback" not in text
        # "32" might be a quote currency, and any word the name of a file that is not there.
        is_refused = code == 2 or (code, command[0]) in {(1, "markets"), (6, "replay")}
        assert is_refused and is_harmless, (SEED, number, command, word, code, text)  # noqa: PT018 - one picture


if __name__ == "__main__":
    main()
