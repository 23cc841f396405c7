"""Record what comes in, byte for byte, and play it again without a network: the same program, the same deliveries."""

import itertools
import tempfile
from pathlib import Path

from upbit_backbone import DataType, MarketDataBackbone

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "day.rec"

with MarketDataBackbone() as market, market.record(path) as recorder:
    live = list(itertools.islice(market.subscribe(["KRW-BTC", "KRW-ETH"], DataType.TRADE, timeout=10), 20))
stats = recorder.stats
print(f"{len(live)} trades seen; {stats.records} records, {stats.written_bytes:,} bytes, {stats.lost} lost")

with MarketDataBackbone.replay(path) as past:
    again = list(itertools.islice(past.subscribe(["KRW-BTC", "KRW-ETH"], DataType.TRADE, timeout=10), 20))
    print("the same again:", [trade.sequential_id for trade in again] == [trade.sequential_id for trade in live])
folder.cleanup()
