"""Every command, into outputs of many encodings that know only some of its characters: none may die of one.

`every_output.py FOLDER [ENCODING…]`. Run by test_characters.py and test_korean.py in a process of its own, because the
command line changes signal handlers and logging.
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
# Asked of one encoding only: they take longer, or write files into the folder they are started in.
MORE = [
    ["record", "day.rec", "KRW-BTC", "--seconds", "1"],
    ["replay", "day.rec", "--info"],
    ["replay", "day.rec", "--type", "candle.1m"],
    ["replay", "day.csv"],
    ["replay", "day.rec", "--speed", "fast"],
    ["demo", "--seconds", "1.5"],
    ["explain", "candles", "KRW-BTC"],
    ["explain", "markets"],
    ["explain", "nonsense"],
    ["trades", "KRW-BTC", "--days-ago", "1"],
    ["trades", "KRW-BTC", "--days-ago", "9"],
    ["trades", "KRW-BTC", "--count", "many"],
    ["trades"],
    ["book", "KRW-BTC", "--level", "7"],
    ["book", "KRW-BTC", "--levels", "99"],
    ["ticker", "krw-btc"],
    ["ticker", "KRW-BTX"],
    ["ticker", "KRW-BTC", "KRW-ETX"],
    ["ticker", "--nonsense", "KRW-BTC"],
    ["candles", "KRW-BTC", "7m"],
    ["candles", "KRW-BTC", "1d", "--start", "2026-01-02", "--end", "2026-01-01"],
    ["candles", "KRW-BTC", "1d", "--start", "yesterday"],
    ["candles", "KRW-BTC", "1m", "--count", "3", "--csv", "day.csv"],
    ["candles", "KRW-BTC", "1m", "--count", "3", "--csv", "day.csv"],
    ["candles", "KRW-BTC", "1m", "--count", "3", "--csv", "nowhere/day.csv"],
    ["candles", "KRW-BTC", "1m", "--csv", "a.csv", "--parquet", "a.parquet"],
    ["candles", "KRW-BTC", "1m", "--resume"],
    ["candles", "KRW-BTC", "1m", "--count", "9999999"],
    ["watch", "KRW-BTC", "--type", "nonsense"],
    ["watch", "KRW-BTC", "--type", "trade", "--count", "2"],
    ["watch", "KRW-BTC", "--count", "1", "--count"],
    ["--timeout", "0", "ticker", "KRW-BTC"],
    ["--region", "mars", "ticker", "KRW-BTC"],
    ["--url", "http://example.com", "ticker", "KRW-BTC"],
    ["--rest-url", "http://127.0.0.1:9", "ticker", "KRW-BTC"],
    ["--rest-url", "http://127.0.0.1:9", "doctor"],
    ["--url", "http://127.0.0.1:9", "watch", "KRW-BTC", "--seconds", "1"],
]


def main() -> None:
    folder, real = Path(sys.argv[1]), (sys.stdout, sys.stderr)
    kept = []  # logging holds the stderr it was switched on with
    encodings = sys.argv[2:]
    for encoding in encodings or ENCODINGS:
        for arguments in ASKED + (MORE if encodings else []):
            out, complaints = io.BytesIO(), io.BytesIO()
            sys.stdout = io.TextIOWrapper(out, encoding=encoding, errors="strict", write_through=True)
            sys.stderr = io.TextIOWrapper(complaints, encoding=encoding, errors="strict", write_through=True)
            kept.append((sys.stdout, sys.stderr))
            try:
                code = upbit_backbone.cli.main(arguments)
            finally:
                sys.stdout, sys.stderr = real
            written = out.getvalue() + complaints.getvalue()
            assert code in ((0, 1, 2, 4, 6) if encodings else (0, 2)), (encoding, arguments, code, written)
            assert written, (encoding, arguments)
            assert b"Traceback" not in written, (encoding, arguments, written)
            written.decode(encoding)
            name = f"{encoding} {' '.join(arguments)}".replace("/", "∕")
            (folder / name).write_bytes(written if encodings else out.getvalue())


if __name__ == "__main__":
    main()
