"""A recorder that says on its output whenever it touches the disk, so that it can be killed just then.

python killed_recorder.py STORE REST_URL WEBSOCKET_URL SYMBOL…
"""

from __future__ import annotations

import os
import sys
from typing import Any

from upbit_backbone import DataType, MarketDataBackbone
from upbit_backbone.sinks import SqliteSink, sink_recorder

KINDS = (DataType.TRADE, DataType.TICKER, DataType.CANDLE_1S)


def say(word: str) -> None:
    os.write(1, f"{word}\n".encode())


class Talking(SqliteSink):
    def write(self, batch: Any) -> int:
        say("writes")
        news = super().write(batch)
        say("has written")
        return news

    def gap(self, event: Any) -> None:
        say("notes a gap")
        super().gap(event)


def main(path: str, rest_url: str, websocket_url: str, *symbols: str) -> None:
    sink_recorder.COVERAGE_SECONDS = 0.2  # type: ignore[misc]
    sink_recorder.FILL_AGAIN_SECONDS = 0.3  # type: ignore[misc]
    with MarketDataBackbone(rest_url=rest_url, websocket_url=websocket_url) as market:
        say("begins")
        with market.record_to(Talking(path), symbols, KINDS, flush_seconds=0.05, batch_rows=20) as recorder:
            recorder.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
