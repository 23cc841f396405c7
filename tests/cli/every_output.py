"""Every command, into outputs of many encodings that know only some of its characters: none may die of one.

Run by test_characters.py in a process of its own, because the command line changes signal handlers and logging.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import upbit_backbone.cli

ENCODINGS = ["cp949", "cp1252", "ascii", "cp437", "euc_kr", "utf-8"]
ASKED = [
    ["--help"],
    ["--version"],
    ["doctor"],
    ["book", "KRW-BTC"],
    ["explain", "ticker", "KRW-BTC"],
    ["markets"],
    ["markets", "--json"],
    ["ticker", "KRW-BTC", "KRW-ETH"],
    ["ticker", "KRW-없다"],
    ["ticker", "💥"],
    ["trades", "KRW-BTC"],
    ["candles", "KRW-BTC", "1m", "--count", "5"],
    ["watch", "KRW-BTC", "--count", "1"],
    ["nonsense"],
    ["ticker"],
    *([name, "--help"] for name in ("ticker", "watch", "book", "candles", "doctor", "record", "replay", "demo")),
]


def main() -> None:
    folder, real = Path(sys.argv[1]), (sys.stdout, sys.stderr)
    kept = []  # logging holds the stderr it was switched on with
    for encoding in ENCODINGS:
        for arguments in ASKED:
            out, complaints = io.BytesIO(), io.BytesIO()
            sys.stdout = io.TextIOWrapper(out, encoding=encoding, errors="strict", write_through=True)
            sys.stderr = io.TextIOWrapper(complaints, encoding=encoding, errors="strict", write_through=True)
            kept.append((sys.stdout, sys.stderr))
            try:
                code = upbit_backbone.cli.main(arguments)
            finally:
                sys.stdout, sys.stderr = real
            written = out.getvalue() + complaints.getvalue()
            assert code in (0, 2), (encoding, arguments, code, written)
            assert written, (encoding, arguments)
            assert b"Traceback" not in written, (encoding, arguments, written)
            written.decode(encoding)
            (folder / f"{encoding} {' '.join(arguments)}").write_bytes(out.getvalue())


if __name__ == "__main__":
    main()
