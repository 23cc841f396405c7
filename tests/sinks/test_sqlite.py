from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from operator import attrgetter

import msgspec
import pytest

from upbit_backbone.archive import Store
from upbit_backbone.errors import FileInUseError, InvalidRequestError
from upbit_backbone.models.enums import DataSource, DataType, StreamType
from upbit_backbone.models.events import GapEvent
from upbit_backbone.models.number import plain
from upbit_backbone.models.readable import KST
from upbit_backbone.sinks import sqlite as sqlite_module
from upbit_backbone.sinks import trade_rows
from upbit_backbone.sinks.base import Batch, Hole, Span
from upbit_backbone.sinks.columns import from_micros, to_micros
from upbit_backbone.sinks.coverage import TICK
from upbit_backbone.sinks.sqlite import SqliteSink, schema

from .conftest import at, book, candle, ticker, trade


@pytest.fixture
def sink(path):
    sink = SqliteSink(path)
    sink.open()
    yield sink
    sink.close()


def gap(first: float, last: float, **more) -> GapEvent:
    values = {
        "at": at(1000), "symbol": "KRW-BTC", "type": DataType.TRADE, "start": at(first), "end": at(last),
        "recovered": 0, "complete": False, "missing_start": at(first), "missing_end": at(last), "reason": "gone",
    }  # fmt: skip
    return GapEvent(**{**values, **more})


def span(first: float, last: float, **more) -> Span:
    return Span("KRW-BTC", "trade", at(first), at(last), **more)


def test_what_goes_in_comes_out_equal_and_in_order(sink, path):
    trades = [trade(number) for number in range(5)]
    assert sink.write(Batch([*reversed(trades), ticker(1), ticker(2), book(1), candle(0), candle(1)])) == 10
    store = Store(path)
    assert store.trades("KRW-BTC") == trades
    assert store.tickers("KRW-BTC") == [ticker(1), ticker(2)]
    assert store.orderbooks("KRW-BTC") == [book(1)]
    assert store.candles("KRW-BTC", "1m") == [candle(0), candle(1)]
    assert store.trades("KRW-BTC", at(0.1), at(0.3)) == trades[1:3]
    assert store.trades("KRW-ETH") == []


def test_what_comes_again_is_there_once_and_counts_as_known(sink, path):
    batch = Batch([trade(1), trade(2), ticker(1), book(1)])
    assert sink.write(batch) == 4
    assert sink.write(batch) == 0
    assert sink.write(Batch([trade(2), trade(3)])) == 1
    assert len(Store(path).trades("KRW-BTC")) == 3


def test_trades_without_an_id_are_kept_each_once_too(sink, path):
    nameless = [trade(number, sequential_id=None) for number in range(3)]
    assert sink.write(Batch(nameless)) == 3
    assert sink.write(Batch(nameless)) == 0
    assert Store(path).trades("KRW-BTC") == nameless
    assert {each.sequential_id for each in Store(path).trades("KRW-BTC")} == {None}


def test_a_ticker_without_a_volume_comes_back_without_one(sink, path):
    sink.write(Batch([ticker(1, volume_today=None)]))
    assert Store(path).tickers("KRW-BTC") == [ticker(1, volume_today=None)]


def test_two_tickers_of_one_moment_are_two_when_the_volume_has_grown(sink, path):
    sink.write(Batch([ticker(1), ticker(1, volume_today=Decimal("1.5"))]))
    assert len(Store(path).tickers("KRW-BTC")) == 2


def test_a_corrected_candle_takes_the_place_of_the_earlier_one_but_none_that_forms_that_of_a_final_one(sink, path):
    sink.write(Batch([candle(0, "3"), candle(0, "4")]))
    assert [each.close_price for each in Store(path).candles("KRW-BTC")] == [4]
    sink.write(Batch([candle(0, "5")]))
    final = candle(0, "6", is_closed=True, source=DataSource.REST)
    sink.write(Batch([final]))
    sink.write(Batch([candle(0, "7"), final]))
    (stored,) = Store(path).candles("KRW-BTC")
    assert (stored.close_price, stored.is_closed, stored.source) == (6, True, DataSource.REST)


def test_a_candle_counts_as_closed_once_a_later_one_or_the_coverage_says_so(sink, path):
    sink.write(Batch([candle(0), candle(1)]))
    store = Store(path)
    assert [each.is_closed for each in store.candles("KRW-BTC")] == [True, False]
    assert [each.is_closed for each in store.candles("KRW-BTC", end=at(60))] == [True]
    sink.write(Batch(spans=(Span("KRW-BTC", "candle.1m", at(0), at(120)),)))
    assert [each.is_closed for each in store.candles("KRW-BTC")] == [True, True]


def test_the_later_of_two_books_of_one_moment_counts(sink, path):
    sink.write(Batch([book(1), replace(book(1, size="7"), received_at=at(5)), book(1)]))
    assert [each.asks[0].size for each in Store(path).orderbooks("KRW-BTC")] == [7]


def test_spans_that_touch_are_one_and_gaps_stay_missing_until_a_fill(sink, path):
    sink.write(Batch(spans=(span(0, 10), span(20, 30), span(10, 15), span(5, 12))))
    sink.gap(gap(3, 4))
    sink.gap(gap(3, 4))  # told again with a batch that failed
    store = Store(path)
    states = [(each.start, each.end, each.state.value) for each in store.coverage("KRW-BTC", "trade")]
    after = at(4) + TICK
    assert states == [
        (at(0), at(3), "complete"), (at(3), after, "missing"), (after, at(15), "complete"),
        (at(15), at(20), "missing"), (at(20), at(30), "complete"),
    ]  # fmt: skip
    assert sink.holes() == [
        Hole("KRW-BTC", "trade", at(3), after),
        Hole("KRW-BTC", "trade", at(15), at(20)),
        Hole("KRW-BTC", "trade", at(30), None),
    ]
    sink.write(Batch([trade(35)], spans=(span(2, 21, is_fill=True),)))
    assert [each.state.value for each in store.coverage("KRW-BTC", "trade")] == ["complete"]
    assert sink.holes() == [Hole("KRW-BTC", "trade", at(30), None)]


@pytest.mark.parametrize(
    ("filled", "left"),
    [
        ((0, 30), []),
        ((0, 15), [(15, 20)]),
        ((15, 30), [(10, 15)]),
        ((12, 15), [(10, 12), (15, 20)]),
        ((20, 30), [(10, 20)]),
        ((0, 10), [(10, 20)]),
    ],
)
def test_a_fill_takes_from_a_gap_what_it_brought_and_no_more(sink, path, filled, left):
    sink.write(Batch(spans=(span(0, 30),)))
    sink.gap(gap(10, 20 - TICK.total_seconds()))
    sink.write(Batch(spans=(span(*filled, is_fill=True),)))
    found = [(each.start, each.end) for each in Store(path).coverage("KRW-BTC") if each.state.value != "complete"]
    assert found == [(at(first), at(last)) for first, last in left]


def test_a_gap_that_begins_before_anything_was_recorded_can_be_closed(sink):
    sink.write(Batch(spans=(span(5, 5),)))
    sink.gap(gap(3, 8))
    sink.write(Batch(spans=(span(5, 30),)))
    (hole, _) = sink.holes()
    assert (hole.start, hole.end) == (at(5), at(8) + TICK)
    sink.write(Batch(spans=(Span("KRW-BTC", "trade", hole.start, hole.end, is_fill=True),)))
    assert sink.holes() == [Hole("KRW-BTC", "trade", at(30), None)]


def test_where_recording_began_is_a_hole_until_something_is_known(sink):
    sink.write(Batch(spans=(span(5, 5),)))
    assert sink.holes() == [Hole("KRW-BTC", "trade", at(5), None)]
    sink.write(Batch(spans=(span(9, 9),)))
    assert sink.holes() == [Hole("KRW-BTC", "trade", at(5), None)]
    sink.write(Batch(spans=(span(9, 12),)))
    assert sink.holes() == [Hole("KRW-BTC", "trade", at(5), at(9)), Hole("KRW-BTC", "trade", at(12), None)]


def test_a_batch_that_fails_leaves_nothing_of_itself(sink, path):
    with pytest.raises(sqlite3.Error):
        sink.write(Batch([trade(1)], spans=(Span(None, "trade", at(0), at(1)),)))
    assert Store(path).trades("KRW-BTC") == []
    assert sink.write(Batch([trade(1)])) == 1


def test_a_second_recorder_is_refused_by_name(sink, path):
    with pytest.raises(FileInUseError, match=f"recording by process {os.getpid()}"):
        SqliteSink(path).open()
    with pytest.raises(FileInUseError):
        Store(path).fill(None)


def test_a_store_can_be_read_while_it_is_written(sink, path):
    sink.write(Batch([trade(1)]))
    walk = Store(path).iter_trades("KRW-BTC")
    assert next(walk) == trade(1)
    sink.write(Batch([trade(2)]))
    assert list(walk) == []  # as it was when the walk began
    assert len(Store(path).trades("KRW-BTC")) == 2


@pytest.mark.parametrize(("version", "words"), [(4, "update upbit-backbone"), (0, "new file")])
def test_another_schema_is_refused_and_left_alone(path, version, words):
    sink = SqliteSink(path)
    sink.open()
    sink.close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    before = path.read_bytes()
    for use in (SqliteSink(path).open, lambda: Store(path)):
        with pytest.raises(InvalidRequestError, match=f"schema {version}.*{words}"):
            use()
    assert path.read_bytes() == before


def test_somebody_elses_database_or_file_is_refused_and_left_alone(path, tmp_path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE trades (price REAL)")
    connection.close()
    other = tmp_path / "notes.txt"
    other.write_text("no database at all, but long enough to look like one " * 30)
    for file, words in ((path, "another program's database"), (other, "cannot be used as a store")):
        before = file.read_bytes()
        with pytest.raises(InvalidRequestError, match=words):
            SqliteSink(file).open()
        assert file.read_bytes() == before
        with pytest.raises(InvalidRequestError):
            Store(file)


def test_what_cannot_be_written_is_told_at_once(tmp_path):
    with pytest.raises(InvalidRequestError):
        SqliteSink(tmp_path / "nowhere" / "day.db").open()
    with pytest.raises(InvalidRequestError):
        SqliteSink(tmp_path).open()
    with pytest.raises(InvalidRequestError, match="no such store"):
        Store(tmp_path / "day.db")


MOMENT = 1_769_828_400_123  # ms
TOLD, OLDER, ODD = MOMENT * 10_000 + 7, MOMENT * 1_000 + 7, 42  # with their time before four digits, three, and without


@pytest.mark.parametrize("number", [TOLD, OLDER, ODD])
@pytest.mark.parametrize("order", list(itertools.permutations((0, 1, 90_000))))  # ms by which its times are off
@pytest.mark.parametrize("at_once", [True, False])
def test_an_id_that_comes_with_other_times_is_there_once(path, number, order, at_once):
    items = [
        trade(place, sequential_id=number, timestamp=from_micros((MOMENT + off) * 1_000))
        for place, off in enumerate(order)
    ]
    others = [trade(8), trade(9, symbol="KRW-ETH", sequential_id=number)]
    news = 0
    for batch in [items] if at_once else [[each] for each in items]:
        sink = SqliteSink(path)
        sink.open()
        news += sink.write(Batch([*batch, *others, *batch]))
        sink.close()
    assert news == 3
    assert Store(path).trades("KRW-BTC") == sorted([items[0], trade(8)], key=attrgetter("timestamp"))
    assert Store(path).trades("KRW-ETH") == others[1:]


def test_many_trades_of_which_some_are_known_are_each_there_once_and_in_order(sink, path):
    moments = range(MOMENT, MOMENT + 2 * trade_rows.ROWS_AT_ONCE + 3)
    items = [trade(1, sequential_id=each * 10_000, timestamp=from_micros(each * 1_000)) for each in moments]
    known = items[::7]
    assert sink.write(Batch(known)) == len(known)
    assert sink.write(Batch([*reversed(items), *items[-9:]])) == len(items) - len(known)
    assert Store(path).trades("KRW-BTC") == items


def test_trades_of_many_markets_that_come_in_turns_each_come_back_as_the_first_that_was_told_of_them(sink, path):
    symbols = ("KRW-BTC", "KRW-ETH", "BTC-XRP")
    sources = (DataSource.WEBSOCKET, DataSource.RELAY, DataSource.REST, DataSource.REST)
    items = []
    for number in range(2 * trade_rows.ROWS_AT_ONCE + 1):
        key = {"sequential_id": (MOMENT + number) * 10_000, "timestamp": from_micros((MOMENT + number) * 1_000)}
        others = {"source": sources[number % 4], "is_backfilled": number % 5 == 0}
        items.append(trade(number + 1, symbol=symbols[number % 3], **key, **others))
    again = [replace(each, price=each.price + 1) for each in items]
    assert sink.write(Batch([*items, *again])) == len(items)
    for place, symbol in enumerate(symbols):
        kept = Store(path).trades(symbol)
        assert kept == items[place::3]
        assert [(each.source, each.is_backfilled) for each in kept] == [
            (each.source, each.is_backfilled) for each in items[place::3]
        ]


def test_ids_that_tell_their_time_are_not_looked_up(path):
    sink = SqliteSink(path)
    sink.open()
    asked: list[str] = []
    sink._open_connection.set_trace_callback(asked.append)
    moments = range(MOMENT, MOMENT + 9)
    items = [trade(1, sequential_id=each * 10_000, timestamp=from_micros(each * 1_000)) for each in moments]
    assert sink.write(Batch(items)) == 9
    assert len([each for each in asked if each.startswith("SELECT")]) == 1
    sink.close()


def test_the_schema_is_of_the_version_it_says():
    """Whoever changes a model changes the tables: then the version is another, and this text is, too."""
    assert sqlite_module.SCHEMA_VERSION == 3
    tables = [line.split(" (", 1)[0] for line in schema().splitlines() if line.startswith("CREATE")]
    assert tables == [
        "CREATE TABLE trade_rows", "CREATE TABLE IF NOT EXISTS odd_ids", "CREATE VIEW trades AS SELECT",
        *(f"CREATE TABLE {name}" for name in ("candles", "tickers", "orderbooks", "coverage", "gaps", "meta")),
    ]  # fmt: skip
    assert schema().splitlines()[0] == (
        "CREATE TABLE trade_rows (symbol TEXT NOT NULL, timestamp INTEGER NOT NULL, sequential_id INTEGER NOT NULL, "
        "rest TEXT NOT NULL, PRIMARY KEY (symbol, timestamp, sequential_id)) WITHOUT ROWID;"
    )
    listed = ["side", "price", "volume", "prev_closing_price", "change_amount", "best_ask_price", "best_ask_size"]
    listed += ["best_bid_price", "best_bid_size", "published_at", "received_at"]
    assert list(trade_rows.LISTED) == listed
    assert [each.name for each in msgspec.structs.fields(trade_rows.Rest)] == [*listed, trade_rows.ORIGIN, "word"]
    origins = {number: trade_rows.told_by(number, "NEW") for number in (0, 10, 13, 14, 21, 29)}
    assert origins == {
        0: ("rest", None, False), 10: ("websocket", "SNAPSHOT", False), 13: ("websocket", "REALTIME", True),
        14: ("websocket", "NEW", False), 21: ("relay", "REALTIME", True), 29: ("derived", "REALTIME", True),
    }  # fmt: skip
    assert set(trade_rows.SOURCES) == set(DataSource)
    assert set(trade_rows.STREAM_TYPES) == {None, *StreamType}


# As it was until schema 2.
FIRST_TRADES = (
    "CREATE TABLE trades (symbol TEXT NOT NULL, price TEXT, volume TEXT, side TEXT, timestamp INTEGER, "
    "sequential_id INTEGER NOT NULL, source TEXT, prev_closing_price TEXT, change_amount TEXT, "
    "best_ask_price TEXT, best_ask_size TEXT, best_bid_price TEXT, best_bid_size TEXT, published_at INTEGER, "
    "stream_type TEXT, is_backfilled INTEGER, received_at INTEGER, PRIMARY KEY (symbol, sequential_id)) "
    "WITHOUT ROWID"
)


@pytest.fixture
def first_path(path):
    """An empty store of schema 1."""
    sink = SqliteSink(path)
    sink.open()
    sink.close()
    connection = sqlite3.connect(path)
    for statement in (
        "DROP VIEW trades", "DROP TABLE trade_rows", FIRST_TRADES,
        "CREATE INDEX trades_by_time ON trades (symbol, timestamp)", "PRAGMA user_version = 1",
    ):  # fmt: skip
        connection.execute(statement)
    connection.close()
    return path


# All that a trade may say: everything and next to nothing, small and wide numbers, words and zones nobody expects.
ODD_TRADES = [
    trade(1),
    trade(
        2, change_amount=Decimal("-150000"), best_ask_price=plain(Decimal("0.00000012")), best_ask_size=Decimal(1),
        best_bid_price=Decimal("12345678901234567890.5"), best_bid_size=Decimal("0.5"), is_backfilled=True,
        published_at=at(0.2), received_at=at(3),
    ),
    trade(3, side=None, sequential_id=None, prev_closing_price=None, stream_type=None, received_at=None),
    trade(4, side='B"I\\D,\n한', stream_type='"NEW\\" ],["', source=DataSource.REST),
    trade(5, published_at=at(1.5).astimezone(KST), received_at=at(2).astimezone(KST), price=plain(Decimal("1E-7"))),
    trade(6, published_at=at(0.6) - TICK, received_at=at(-86_400 * 40), stream_type="SNAPSHOT", is_backfilled=True),
    trade(7, stream_type="NEW", is_backfilled=True, source=DataSource.DERIVED),
    trade(8, side="null", source=DataSource.RELAY, stream_type=None, received_at=at(0.8), published_at=at(0.8)),
]  # fmt: skip


@pytest.mark.parametrize("form", ["path", "first_path"])
def test_a_store_of_either_schema_is_written_and_read_as_it_is(form, request):
    path = request.getfixturevalue(form)
    sink = SqliteSink(path)
    sink.open()
    assert sink.write(Batch(ODD_TRADES)) == len(ODD_TRADES)
    assert sink.write(Batch([*ODD_TRADES, trade(9)])) == 1
    sink.close()
    store = Store(path)
    assert store.trades("KRW-BTC") == [*ODD_TRADES, trade(9)]
    assert store.as_of("KRW-BTC", at(0.45)).trade == ODD_TRADES[3]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (3 if form == "path" else 1,)
        assert {"trade_rows"} & tables_in(connection) == ({"trade_rows"} if form == "path" else set())


def test_many_trades_of_far_apart_days_in_one_batch_each_come_back_as_they_were(sink, path):
    count = 2 * trade_rows.ENCODED_AT_ONCE + 1  # the last of which is encoded alone
    day = 86_400
    items = [
        trade(number, seconds=-day * number + number / 1_000, stream_type="A\n\u2028B" if number % 7 else None)
        for number in range(count)
    ]
    items.append(trade(count, timestamp=from_micros(-1), published_at=from_micros(1)))
    assert sink.write(Batch(items)) == len(items)
    assert Store(path).trades("KRW-BTC") == sorted(items, key=attrgetter("timestamp"))


def test_a_batch_is_on_the_disk_when_it_is_over_however_seldom_the_log_goes_into_the_file(sink):
    assert sink._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert sink._connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (sqlite_module.CHECKPOINT_PAGES,)


def tables_in(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_a_store_of_the_first_schema_comes_as_a_table_in_order_of_time(first_path):
    pytest.importorskip("pyarrow")
    sink = SqliteSink(first_path)
    sink.open()
    sink.write(Batch([trade(number, seconds=9 - number) for number in range(9)]))
    sink.close()
    table = Store(first_path).table("trades", "KRW-BTC", at(2), columns=["received_at", "price"])
    assert table["price"].to_pylist() == [trade(number).price for number in reversed(range(8))]


def test_any_program_finds_a_trade_as_it_lay_in_the_first_schema(first_path, tmp_path):
    shown = []
    for file in (first_path, tmp_path / "third.db"):
        sink = SqliteSink(file)
        sink.open()
        sink.write(Batch(ODD_TRADES))
        sink.close()
        shown.append(shown_by(file))
    assert shown[0] == shown[1]
    names, rows = shown[0]
    assert names == list(trade_rows.TRADES.names)
    told = [[getattr(each, name) for name in names] for each in ODD_TRADES]
    expected = {tuple(_as_shown(each) for each in row) for row in told}
    given = {(*row[:5], None if row[5] < 0 else row[5], *row[6:]) for row in rows}  # an id below zero was made by us
    assert given == expected


def _as_shown(value: object) -> object:
    if isinstance(value, datetime):
        return to_micros(value)
    return str(value) if isinstance(value, Decimal | StrEnum) else value


# A store of schema 2, which no release wrote: as it was made, and what it made of `ODD_TRADES`.
SECOND_TABLE = (
    "CREATE TABLE trade_rows (symbol TEXT NOT NULL, timestamp INTEGER NOT NULL, sequential_id INTEGER NOT NULL, "
    "price TEXT NOT NULL, volume TEXT NOT NULL, side TEXT, rest TEXT NOT NULL, "
    "PRIMARY KEY (symbol, timestamp, sequential_id)) WITHOUT ROWID"
)
SECOND_VIEW = """CREATE VIEW trades AS SELECT
    symbol,
    price,
    volume,
    side,
    timestamp,
    sequential_id,
    json_extract(rest, '$[0]') AS source,
    json_extract(rest, '$[1]') AS prev_closing_price,
    json_extract(rest, '$[2]') AS change_amount,
    json_extract(rest, '$[3]') AS best_ask_price,
    json_extract(rest, '$[4]') AS best_ask_size,
    json_extract(rest, '$[5]') AS best_bid_price,
    json_extract(rest, '$[6]') AS best_bid_size,
    CAST(strftime('%s', json_extract(rest, '$[7]')) AS INTEGER) * 1000000 +
        CASE substr(json_extract(rest, '$[7]'), 20, 1) WHEN '.'
        THEN CAST(substr(json_extract(rest, '$[7]'), 21, 6) AS INTEGER) ELSE 0 END AS published_at,
    json_extract(rest, '$[8]') AS stream_type,
    json_extract(rest, '$[9]') AS is_backfilled,
    CAST(strftime('%s', json_extract(rest, '$[10]')) AS INTEGER) * 1000000 +
        CASE substr(json_extract(rest, '$[10]'), 20, 1) WHEN '.'
        THEN CAST(substr(json_extract(rest, '$[10]'), 21, 6) AS INTEGER) ELSE 0 END AS received_at
FROM trade_rows"""
SECOND_ROWS = [
    (
        *("KRW-BTC", 1769828400100000, 17000000000000001, "106691001", "0.00012345", "BID"),
        '["websocket","106000000",null,null,null,null,null,null,"REALTIME",false,"2026-01-31T03:00:00.150000Z"]',
    ),
    (
        *("KRW-BTC", 1769828400200000, 17000000000000002, "106691002", "0.00012345", "BID"),
        '["websocket","106000000","-150000","0.00000012","1","12345678901234567890.5","0.5","2026-01-31T03:00:00.200000Z","REALTIME",true,"2026-01-31T03:00:03Z"]',
    ),
    (
        *("KRW-BTC", 1769828400300000, -11689450236283495, "106691003", "0.00012345", None),
        '["websocket",null,null,null,null,null,null,null,null,false,null]',
    ),
    (
        *("KRW-BTC", 1769828400400000, 17000000000000004, "106691004", "0.00012345", 'B"I\\D,\n한'),
        '["rest","106000000",null,null,null,null,null,null,"\\"NEW\\\\\\" ],[\\"",false,"2026-01-31T03:00:00.450000Z"]',
    ),
    (
        *("KRW-BTC", 1769828400500000, 17000000000000005, "0.0000001", "0.00012345", "BID"),
        '["websocket","106000000",null,null,null,null,null,"2026-01-31T12:00:01.500000+09:00","REALTIME",false,"2026-01-31T12:00:02+09:00"]',
    ),
    (
        *("KRW-BTC", 1769828400600000, 17000000000000006, "106691006", "0.00012345", "BID"),
        '["websocket","106000000",null,null,null,null,null,"2026-01-31T03:00:00.599000Z","SNAPSHOT",true,"2025-12-22T03:00:00Z"]',
    ),
    (
        *("KRW-BTC", 1769828400700000, 17000000000000007, "106691007", "0.00012345", "BID"),
        '["derived","106000000",null,null,null,null,null,null,"NEW",true,"2026-01-31T03:00:00.750000Z"]',
    ),
    (
        *("KRW-BTC", 1769828400800000, 17000000000000008, "106691008", "0.00012345", "null"),
        '["relay","106000000",null,null,null,null,null,"2026-01-31T03:00:00.800000Z",null,false,"2026-01-31T03:00:00.800000Z"]',
    ),
]


@pytest.fixture
def second_path(path):
    """A store of schema 2, one of the first, which had no `odd_ids`."""
    sink = SqliteSink(path)
    sink.open()
    sink.write(Batch([ticker(1)]))
    sink.close()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        dropped = ("DROP VIEW trades", "DROP TABLE trade_rows", "DROP TABLE odd_ids")
        for statement in (*dropped, SECOND_TABLE, SECOND_VIEW, "PRAGMA user_version = 2"):
            connection.execute(statement)
        connection.executemany("INSERT INTO trade_rows VALUES (?, ?, ?, ?, ?, ?, ?)", SECOND_ROWS)
    return path


def shown_by(path) -> tuple[list[str], list[tuple]]:
    """What any program finds in `trades`: the names of its columns, and its rows."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT * FROM trades ORDER BY symbol, sequential_id")
        return [each[0] for each in found.description], found.fetchall()


def version_of(path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA user_version").fetchone()[0]


def test_a_store_of_the_second_schema_is_read_as_it_is_and_made_one_of_the_third_by_who_writes_to_it(second_path):
    before = shown_by(second_path)
    assert Store(second_path).trades("KRW-BTC") == ODD_TRADES
    assert version_of(second_path) == 2
    sink = SqliteSink(second_path)
    sink.open()
    assert version_of(second_path) == 3
    assert shown_by(second_path) == before
    assert sink.write(Batch([*ODD_TRADES, trade(9)])) == 1  # those that were there are known
    sink.close()
    assert Store(second_path).trades("KRW-BTC") == [*ODD_TRADES, trade(9)]
    assert Store(second_path).tickers("KRW-BTC") == [ticker(1)]


def test_trades_that_were_converted_lie_as_those_that_were_written(second_path, tmp_path):
    found = []
    for file, batch in ((tmp_path / "third.db", Batch(ODD_TRADES)), (second_path, Batch())):
        sink = SqliteSink(file)
        sink.open()
        sink.write(batch)
        sink.close()
        with contextlib.closing(sqlite3.connect(file)) as connection:
            rows = connection.execute("SELECT * FROM trade_rows ORDER BY timestamp").fetchall()
            tables = "SELECT name, sql FROM sqlite_master WHERE name LIKE 'trade%' OR name LIKE 'odd%' ORDER BY name"
            found.append((rows, connection.execute(tables).fetchall()))
    assert found[0] == found[1]


def test_a_store_of_the_second_schema_comes_as_a_table_too(second_path):
    pytest.importorskip("pyarrow")
    table = Store(second_path).table("trades", "KRW-BTC")
    for name in ("price", "best_bid_price", "published_at", "received_at", "is_backfilled"):
        assert table[name].to_pylist() == [getattr(each, name) for each in ODD_TRADES]


CONVERTED_AND_KILLED = """
import contextlib, os, signal, sys
from upbit_backbone.sinks import sqlite

@contextlib.contextmanager
def killed(connection):
    connection.execute("PRAGMA cache_spill = 1")
    connection.execute("BEGIN IMMEDIATE")
    yield connection
    os.kill(os.getpid(), signal.SIGKILL)

sqlite.transaction = killed
sqlite.SqliteSink(sys.argv[1]).open()
"""


def test_who_is_killed_while_converting_leaves_the_store_as_it_was(second_path):
    before = shown_by(second_path)
    told = subprocess.run([sys.executable, "-c", CONVERTED_AND_KILLED, str(second_path)], capture_output=True)
    assert told.returncode == -signal.SIGKILL, told.stderr.decode()
    assert version_of(second_path) == 2
    assert shown_by(second_path) == before
    assert Store(second_path).trades("KRW-BTC") == ODD_TRADES
    sink = SqliteSink(second_path)
    sink.open()
    sink.close()
    assert (version_of(second_path), shown_by(second_path)) == (3, before)
