"""Programs in the manner of what people write with pyupbit: they say `import pyupbit`, and run as they are."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "docs" / language / "migration" / "pyupbit.md" for language in ("en", "ko")]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

# What pyupbit's manual shows, written anew: what is to be run, and what must be true of it afterwards.
MANUAL = [
    ("tickers = pyupbit.get_tickers()", "'KRW-BTC' in tickers and 'BTC-ETH' in tickers"),
    ('krw = pyupbit.get_tickers(fiat="KRW")', "all(code.startswith('KRW-') for code in krw)"),
    ("price = pyupbit.get_current_price('KRW-XRP')", "isinstance(price, float)"),
    ("prices = pyupbit.get_current_price(['KRW-BTC', 'KRW-XRP'])", "prices['KRW-BTC'] > prices['KRW-XRP']"),
    ("df = pyupbit.get_ohlcv('KRW-BTC')", "df.shape == (200, 6)"),
    ("df = pyupbit.get_ohlcv('KRW-BTC', count=5)", "len(df) == 5"),
    ("df = pyupbit.get_ohlcv('KRW-BTC', interval='minute1')", "len(df) == 200"),
    ("df = pyupbit.get_ohlcv('KRW-BTC', interval='minute60', count=600)", "len(df) == 600 and df.index.is_unique"),
    ("df = pyupbit.get_ohlcv('KRW-BTC', to='20260101')", "str(df.index[-1]) == '2025-12-31 09:00:00'"),
    ("book = pyupbit.get_orderbook('KRW-BTC')", "book['orderbook_units'][0]['ask_price'] > 0"),
    (
        "books = pyupbit.get_orderbook(['KRW-BTC', 'KRW-XRP'])\nasks = [b['total_ask_size'] for b in books]",
        "len(asks) == 2",
    ),
    (
        "book = pyupbit.get_orderbook(ticker='KRW-BTC')\nbest = book['orderbook_units'][0]\n"
        "spread = best['ask_price'] - best['bid_price']",
        "spread > 0",
    ),
    ("price = pyupbit.get_tick_size(1234567)", "price == 1234500 or price == 1234000"),
    ("df = pyupbit.get_daily_ohlcv_from_base('KRW-BTC', base=9)", "set(df.index.hour) == {9}"),
    ("price, limit = pyupbit.get_current_price('KRW-BTC', limit_info=True)", "limit['group'] == 'ticker'"),
]

TREND = """
import pyupbit

rows = []
for ticker in pyupbit.get_tickers(fiat="KRW"):
    df = pyupbit.get_ohlcv(ticker, interval="day", count=25, to="2026-01-20")
    if df is None:
        continue
    short, long = df.close.rolling(5).mean(), df["close"].rolling(20).mean()
    rows.append((ticker, short.iloc[-1] > long.iloc[-1], round(float(df["volume"].iloc[-5:].sum()), 8)))
    df["up"] = df.close.diff() > 0
    print(ticker, df.shape, int(short.isna().sum()), int(long.isna().sum()), df.up.dtype)
print(len(rows), {type(flag).__name__ for _, flag, _ in rows})
"""
TREND_SAID = """KRW-BTC (25, 7) 4 19 bool
KRW-ETH (25, 7) 4 19 bool
KRW-XRP (25, 7) 4 19 bool
3 {'bool'}
"""
NIGHT = """
import datetime, pyupbit

def begin(ticker):
    return pyupbit.get_ohlcv(ticker, "day", 1).index[0]

now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None) + datetime.timedelta(hours=9)
start = begin("KRW-BTC")
print(start <= now, start.hour)
pages, to = [], "2026-01-05 00:00:00"
for _ in range(3):
    page = pyupbit.get_ohlcv("KRW-ETH", "minute240", 50, to=to)
    pages.append(page)
    to = page.index[0] - datetime.timedelta(hours=9)
import pandas as pd
whole = pd.concat(pages).sort_index()
print(len(whole), whole.index.is_unique, whole.index[-1])
print(pd.concat(pages).groupby(level=0).size().max(), (whole.high >= whole.low).all())
"""
NIGHT_SAID = """True 9
150 True 2026-01-05 05:00:00
1 True
"""
CAREFUL = """
import time, pyupbit
from pyupbit.errors import UpbitError

def price(ticker):
    for _ in range(2):
        try:
            return pyupbit.get_current_price(ticker)
        except UpbitError as error:
            print("refused", error.code)
        time.sleep(0.01)

print(price("KRW-BTC") > 0, price("KRW-GONE"))
try:
    pyupbit.get_ohlcv("KRW-GONE")["close"]
except TypeError as error:
    print("NoneType" in str(error))
holding = {"KRW-BTC": 0.5, "KRW-XRP": 100}
worth = sum(pyupbit.get_current_price(list(holding))[each] * amount for each, amount in holding.items())
print(type(worth).__name__, worth > 0)
"""
CAREFUL_SAID = """refused 404
refused 404
True None
True
float True
"""


@pytest.mark.parametrize(("snippet", "is_true"), MANUAL, ids=[snippet.splitlines()[-1][:60] for snippet, _ in MANUAL])
def test_what_the_manual_shows_works(in_place: ModuleType, snippet: str, is_true: str) -> None:
    names: dict[str, Any] = {}
    exec(f"import pyupbit\n{snippet}", names)  # noqa: S102 - which is what is tried
    assert eval(is_true, names)  # noqa: S307 - of this file


@pytest.mark.parametrize(
    ("program", "said"),
    [(TREND, TREND_SAID), (NIGHT, NIGHT_SAID), (CAREFUL, CAREFUL_SAID)],
    ids=["trend", "night", "careful"],
)
def test_a_program_says_what_it_says_with_pyupbit(
    in_place: ModuleType, capsys: pytest.CaptureFixture[str], program: str, said: str
) -> None:
    exec(compile(program, "program", "exec"), {"__name__": "__main__"})  # noqa: S102 - which is what is tried
    assert capsys.readouterr().out == said


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_the_migration_page_runs(pyupbit: ModuleType, page: Path) -> None:
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    assert len(blocks) >= 4
    for block in blocks:
        exec(compile(block, page.name, "exec"), {"__name__": "__main__"})  # noqa: S102 - which is what is tried


def test_the_page_names_every_function_and_is_the_same_in_both_languages(pyupbit: ModuleType) -> None:
    english, korean = (page.read_text(encoding="utf-8") for page in PAGES)
    named = {name for module in ("quotation_api", "websocket_api") for name in pyupbit._NAMES_OF[module]}
    for page in (english, korean):
        rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
        assert all(any(f"`{name}(" in row for row in rows) for name in named | {"get_tick_size", "Upbit"})
    assert BLOCK.findall(english) == BLOCK.findall(korean)
    assert english.count("\n| ") == korean.count("\n| ")
