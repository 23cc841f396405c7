"""What the machine or the installation no longer gives: modules, file descriptors, threads, a temporary folder."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from upbit_backbone import ResourceError
from upbit_backbone._concurrency import Deadline, spawn
from upbit_backbone.export import whole_file
from upbit_backbone.export.files import write_csv
from upbit_backbone.limits.rate_limiter import RateLimiter
from upbit_backbone.models.enums import Priority, RateGroup
from upbit_backbone.models.market import CandleData
from upbit_backbone.simulator import FakeUpbit

ROOT = Path(__file__).parents[2]

# Every public method that may need something it does not have yet.
METHODS = """
import sys, upbit_backbone as ub
from datetime import UTC, datetime, time
from upbit_backbone import MarketDataBackbone, UpbitBackboneError
folder, JANUARY = sys.argv[2], datetime(2026, 1, 1, tzinfo=UTC)
METHODS = {
    "get_ticker": lambda market: market.get_ticker("KRW-BTC"),
    "get_tickers": lambda market: market.get_tickers(quote="KRW"),
    "get_orderbook": lambda market: market.get_orderbook("KRW-BTC"),
    "get_orderbooks": lambda market: market.get_orderbooks(["KRW-BTC", "KRW-ETH"]),
    "get_trades": lambda market: market.get_trades("KRW-BTC", count=5),
    "get_candles": lambda market: market.get_candles("KRW-BTC", "1m", count=5),
    "get_markets": lambda market: market.get_markets(),
    "get_instruments": lambda market: market.get_instruments(["KRW-BTC"]),
    "round_price": lambda market: market.round_price("KRW-BTC", 1000, "down"),
    "explain": lambda market: market.explain("ticker", "KRW-BTC"),
    "health": lambda market: market.health(),
    "performance": lambda market: market.performance(),
    "subscribe": lambda market: market.subscribe("KRW-BTC", "ticker").close(),
    "subscribe_realtime": lambda market: market.subscribe_realtime("KRW-BTC", "trade", callback=lambda item: None),
    "candle_series": lambda market: market.candle_series("KRW-BTC", "1m", size=5).close(),
    "live_orderbook": lambda market: market.live_orderbook("KRW-BTC").close(),
    "record": lambda market: market.record(folder + "/x.rec").close(),
    "iter_candles": lambda market: next(iter(market.iter_candles("KRW-BTC", "1d", start=JANUARY))),
    "iter_trades": lambda market: next(market.iter_trades("KRW-BTC")),
    "history_start": lambda market: market.history_start("KRW-BTC", "1d"),
    "estimate": lambda market: market.estimate("KRW-BTC", "1m", count=5),
    "days": lambda market: market.get_candles("KRW-BTC", "1d", count=2, day_start=time(8)),
    "to_json": lambda market: market.get_ticker("KRW-BTC").to_json(),
    "to_dict": lambda market: market.get_ticker("KRW-BTC").to_dict(),
    "to_dataframe": lambda market: market.get_candles("KRW-BTC", "1m", count=5).to_dataframe(),
    "unknown": lambda market: market.get_ticker("KRW-BTCC"),
    "submit": lambda market: market.submit(market.get_candles, "KRW-BTC", count=5).result(),
}
"""


def outcomes(program: str, upbit: FakeUpbit, folder: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", METHODS + textwrap.dedent(program), upbit.url, str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


BLOCK = """
class Upgraded:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("upbit_backbone", "dataclasses_json", "difflib"):
            raise ImportError(f"cannot import {name}: it is of another version")
"""


def test_an_upgrade_under_a_running_program_is_told_in_our_words(upbit: FakeUpbit, tmp_path: Path) -> None:
    program = (
        BLOCK
        + """
market = MarketDataBackbone(url=sys.argv[1])
sys.meta_path.insert(0, Upgraded())
for name, method in METHODS.items():
    try:
        method(market)
    except UpbitBackboneError as error:
        print(name, type(error).__name__, error)
    else:
        print(name, "done")
market.close()
"""
    )
    told = outcomes(program, upbit, tmp_path)
    refused = {line.split()[0]: line for line in told if " done" not in line}
    assert len(told) == METHODS.count("lambda market")
    assert "get_ticker" not in refused
    assert "UnknownSymbolError" in refused.pop("unknown")
    assert all("ResourceError" in line and "Start the program anew" in line for line in refused.values()), told
    assert "get_candles" in refused


@pytest.mark.skipif(sys.platform == "win32", reason="no limit there")
@pytest.mark.endurance
def test_without_file_descriptors_nothing_raw_comes_out(upbit: FakeUpbit, tmp_path: Path) -> None:
    program = """
import os, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (128, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
for name, method in METHODS.items():
    for free in (0, 1, 3):
        with MarketDataBackbone(url=sys.argv[1], timeout_seconds=1.0) as market:
            held = []
            try:
                while True:
                    held.append(os.dup(0))
            except OSError:
                pass
            for _ in range(free):
                os.close(held.pop())
            try:
                method(market)
            except UpbitBackboneError as error:
                word = type(error).__name__
            else:
                word = "done"
            finally:
                while held:
                    os.close(held.pop())
            print(name, free, word, flush=True)
"""
    assert len(outcomes(program, upbit, tmp_path)) == 3 * METHODS.count("lambda market")


def test_a_thread_that_cannot_be_had_is_our_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")  # CPython 3.12.0, after the main thread

    monkeypatch.setattr(threading.Thread, "start", none)
    with pytest.raises(ResourceError, match=r"no thread could be started \(can't create new thread"):
        spawn(lambda: None, "test-none")


def test_without_a_temporary_folder_limits_hold_and_the_rest_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def none(*args: object, **options: object) -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.gettempdir", none)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    monkeypatch.setattr(whole_file.tempfile, "TemporaryDirectory", none)
    limiter = RateLimiter("without-a-folder", between_processes=True)
    with limiter.permit(RateGroup.TICKER, Priority.NORMAL, Deadline.after(20)) as permit:
        permit.leaving()
        permit.sent()
        permit.answered()
    limiter.close()
    monkeypatch.setattr(whole_file, "is_replaceable", lambda path: False)  # a pipe
    with pytest.raises(ResourceError, match="No usable temporary directory"):
        write_csv([], tmp_path / "pipe", CandleData)
