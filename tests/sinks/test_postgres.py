"""The PostgreSQL sink, over a real server."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.waiting import wait_until
from upbit_backbone import MarketDataBackbone
from upbit_backbone.errors import AuthenticationError, FileInUseError, InvalidRequestError, NetworkError
from upbit_backbone.models.enums import DataSource, DataType
from upbit_backbone.models.events import GapEvent
from upbit_backbone.sinks import sink_recorder, sink_writer
from upbit_backbone.sinks import spool as spool_module
from upbit_backbone.sinks.base import Batch, Hole, Span
from upbit_backbone.sinks.columns import from_micros
from upbit_backbone.sinks.coverage import TICK, Interval, KnownGap, complete

from .conftest import SYMBOLS, at, backbone, book, candle, ticker, trade

pytest.importorskip("psycopg", reason="the extra [postgres] is not installed")

from tests.support.postgres import PASSWORD, PostgresServer
from upbit_backbone.sinks.postgres import PostgresSink, schema

Query = Callable[..., list[Any]]


@pytest.fixture(scope="session")
def running() -> Iterator[PostgresServer]:
    """One for all tests of a process: making one takes some seconds. A test that kills it starts it again."""
    with tempfile.TemporaryDirectory() as folder:  # short: the name of a socket has no room for that of a test
        server = PostgresServer(Path(folder))
        yield server
        server.kill()


@pytest.fixture
def server(running: PostgresServer) -> Iterator[PostgresServer]:
    yield running
    if not running.is_up:  # the test has failed
        running.start()


@pytest.fixture
def dsn(server: PostgresServer) -> str:
    return server.new_database()


@pytest.fixture
def query(server: PostgresServer, dsn: str) -> Query:
    return lambda statement, *values: server.run(dsn, statement, values)


@pytest.fixture
def sink(dsn: str) -> Iterator[PostgresSink]:
    sink = PostgresSink(dsn)
    sink.open()
    yield sink
    sink.close()


def gap(first: float, last: float, **more: Any) -> GapEvent:
    values = {
        "at": at(1000), "symbol": "KRW-BTC", "type": DataType.TRADE, "start": at(first), "end": at(last),
        "recovered": 0, "complete": False, "missing_start": at(first), "missing_end": at(last), "reason": "gone",
    }  # fmt: skip
    return GapEvent(**{**values, **more})


def span(first: float, last: float, **more: Any) -> Span:
    return Span("KRW-BTC", "trade", at(first), at(last), **more)


def whole(query: Query, symbol: str, kind: str = "trade") -> list[Interval]:
    """What the tables say is complete."""
    spans = query('SELECT start, "end" FROM upbit.coverage WHERE symbol = %s AND type = %s', symbol, kind)
    gaps = query(
        "SELECT missing_start, missing_end, reason, recovered FROM upbit.gaps WHERE symbol = %s AND type = %s "
        "AND missing_start IS NOT NULL AND filled_at IS NULL",
        symbol, kind,
    )  # fmt: skip
    return complete([Interval(*each) for each in spans], [KnownGap(*each) for each in gaps])


def test_what_goes_in_lies_there_under_its_own_names_and_exactly(sink, query):
    assert sink.write(Batch([trade(1), ticker(1), ticker(2), book(1), candle(0), candle(1)])) == 6
    ((price, volume, side, moment, number, backfilled),) = query(
        "SELECT price, volume, side, timestamp, sequential_id, is_backfilled FROM upbit.trades"
    )
    given = trade(1)
    assert (price, volume, side, number) == (given.price, given.volume, "BID", given.sequential_id)
    assert (str(volume), moment, backfilled) == ("0.00012345", given.timestamp, given.is_backfilled)
    assert query("SELECT sum(change_rate), max(highest_52_week_date) FROM upbit.tickers") == [
        (Decimal("-0.0246913578"), ticker(1).highest_52_week_date)
    ]
    assert query("SELECT asks->1->>1, (bids->0->>0)::numeric FROM upbit.orderbooks") == [("0.00000001", Decimal(100))]
    assert query("SELECT timeframe, timestamp, volume FROM upbit.candles ORDER BY timestamp") == [
        ("1m", at(0), Decimal("12.25")), ("1m", at(60), Decimal("12.25")),
    ]  # fmt: skip


def test_what_comes_again_is_there_once_and_counts_as_known(sink, query):
    batch = Batch([trade(1), trade(2), ticker(1), book(1), trade(3, sequential_id=None)])
    assert sink.write(batch) == 5
    assert sink.write(batch) == 0
    assert sink.write(Batch([trade(2), trade(4), trade(4)])) == 1
    assert query("SELECT count(*), count(*) FILTER (WHERE sequential_id < 0) FROM upbit.trades") == [(4, 1)]


def test_tickers_of_one_moment_are_told_apart_by_their_volume_also_without_one(sink, query):
    tickers = [ticker(1), ticker(1, volume_today=Decimal("1.5")), ticker(1, volume_today=None)]
    assert sink.write(Batch(tickers)) == 3
    assert sink.write(Batch(tickers)) == 0
    assert query("SELECT volume_today FROM upbit.tickers ORDER BY 1") == [(Decimal(-1),), (1,), (Decimal("1.5"),)]


def test_a_corrected_candle_takes_the_place_of_the_earlier_one_but_none_that_forms_that_of_a_final_one(sink, query):
    def stored() -> tuple[Any, ...]:
        ((close, is_closed, source),) = query("SELECT close_price, is_closed, source FROM upbit.candles")
        return (close, is_closed, source)

    sink.write(Batch([candle(0, "3"), candle(0, "4")]))
    assert stored() == (4, False, "websocket")
    sink.write(Batch([candle(0, "5")]))
    final = candle(0, "6", is_closed=True, source=DataSource.REST)
    sink.write(Batch([final]))
    sink.write(Batch([candle(0, "7"), final]))
    assert stored() == (6, True, "rest")


def test_the_later_of_two_books_of_one_moment_counts(sink, query):
    sink.write(Batch([book(1), replace(book(1, size="7"), received_at=at(5)), book(1)]))
    sink.write(Batch([book(1)]))
    assert query("SELECT asks->0->>1 FROM upbit.orderbooks") == [("7",)]


def test_spans_that_touch_are_one_and_gaps_stay_missing_until_a_fill(sink, query):
    sink.write(Batch(spans=(span(0, 10), span(20, 30), span(10, 15), span(5, 12))))
    sink.gap(gap(3, 4))
    sink.gap(gap(3, 4))  # told again with a batch that failed
    after = at(4) + TICK
    assert whole(query, "KRW-BTC") == [(at(0), at(3)), (after, at(15)), (at(20), at(30))]
    assert sink.holes() == [
        Hole("KRW-BTC", "trade", at(3), after),
        Hole("KRW-BTC", "trade", at(15), at(20)),
        Hole("KRW-BTC", "trade", at(30), None),
    ]
    sink.write(Batch([trade(35)], spans=(span(2, 21, is_fill=True), Span("KRW-ETH", "ticker", at(1), at(2)))))
    assert whole(query, "KRW-BTC") == [(at(0), at(30))]
    assert sink.holes() == [Hole("KRW-BTC", "trade", at(30), None), Hole("KRW-ETH", "ticker", at(2), None)]


def test_a_fill_takes_from_the_middle_of_a_gap_what_it_brought_and_no_more(sink, query):
    sink.write(Batch(spans=(span(0, 30),)))
    sink.gap(gap(10, 20 - TICK.total_seconds()))
    sink.write(Batch(spans=(span(12, 15, is_fill=True),)))
    assert whole(query, "KRW-BTC") == [(at(0), at(10)), (at(12), at(15)), (at(20), at(30))]


def test_a_batch_that_fails_leaves_nothing_of_itself_and_the_next_one_is_written(sink, query):
    with pytest.raises(Exception, match="null value"):
        sink.write(Batch([trade(1)], spans=(Span(None, "trade", at(0), at(1)),)))
    assert query("SELECT count(*) FROM upbit.trades") == [(0,)]
    assert sink.write(Batch([trade(1)])) == 1


def test_two_recorders_of_the_same_markets_write_nothing_twice_and_lose_no_stretch(dsn, query):
    def record(numbers: range) -> None:
        sink = PostgresSink(dsn)
        sink.open()
        try:
            for number in numbers:
                # In another order each, so that rows that were locked one by one would lock each other out.
                trades = [trade(each, symbol) for each in range(number, number + 30) for symbol in SYMBOLS]
                books, spans = [book(number), book(number + 1)], (span(number, number + 1),)
                sink.write(Batch(trades[:: 1 if numbers.step > 0 else -1] + books, spans=spans))
        finally:
            sink.close()

    threads = [threading.Thread(target=record, args=(numbers,)) for numbers in (range(40), range(39, -1, -1))]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60.0)
        assert not each.is_alive()
    assert query("SELECT symbol, count(*) FROM upbit.trades GROUP BY 1 ORDER BY 1") == [(name, 69) for name in SYMBOLS]
    assert query("SELECT count(*) FROM upbit.orderbooks") == [(41,)]
    assert whole(query, "KRW-BTC") == [(at(0), at(40))]


@pytest.mark.parametrize("form", ["words", "url"])
def test_a_wrong_password_is_told_and_no_password_is_in_any_text(server, form, caplog):
    caplog.set_level(logging.DEBUG)
    wrong = f"{PASSWORD} not"
    url = f"postgresql://keeper:{quote(wrong)}@/postgres?host={quote(str(server.folder), safe='')}"
    sink = PostgresSink(server.dsn(password=wrong) if form == "words" else url)
    with pytest.raises(AuthenticationError, match="refuses the user or password") as caught:
        sink.open()
    told = "".join(traceback.format_exception(caught.value))
    for text in (told, repr(sink), sink.name, sink.place, caplog.text):
        assert PASSWORD not in text
        assert quote(PASSWORD) not in text


@pytest.mark.parametrize("dsn", ["host=x s3cret", "postgresql://u:s3cret@[bad/x", "postgresql://u:s3cret@h:1/x?nix=1"])
def test_an_address_that_is_none_is_refused_without_repeating_it(dsn):
    with pytest.raises(InvalidRequestError, match="address of PostgreSQL cannot be read") as caught:
        PostgresSink(dsn)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_a_server_that_is_not_there_and_a_database_that_is_not_are_told_at_once(server):
    with pytest.raises(NetworkError, match="cannot be reached"):
        PostgresSink("host=/nowhere dbname=market").open()
    with pytest.raises(InvalidRequestError, match="no_such"):
        PostgresSink(server.dsn("no_such")).open()
    with pytest.raises(InvalidRequestError, match="is not open"):
        PostgresSink(server.dsn()).write(Batch([trade(1)]))
    with pytest.raises(InvalidRequestError, match="small letters"):
        PostgresSink(server.dsn(), schema='x"; DROP SCHEMA public')


def test_a_server_that_is_full_for_the_moment_is_one_to_try_again(server, dsn, query):
    query("CREATE ROLE crowd LOGIN CONNECTION LIMIT 0 PASSWORD '{}'".format(PASSWORD.replace("'", "''")))
    try:
        with pytest.raises(NetworkError, match="too many connections") as caught:
            PostgresSink(server.dsn(dsn.split("dbname=")[1].split()[0], user="crowd")).open()
        assert caught.value.retryable
    finally:
        query("DROP ROLE crowd")


@pytest.mark.parametrize("version", ["2", "0"])
def test_a_schema_of_another_version_is_refused_and_left_alone(sink, dsn, query, version):
    query("UPDATE upbit.meta SET value = %s WHERE key = 'schema_version'", version)
    with pytest.raises(InvalidRequestError, match=f"schema version {version} in upbit"):
        PostgresSink(dsn).open()
    assert query("SELECT value FROM upbit.meta WHERE key = 'schema_version'") == [(version,)]
    other = PostgresSink(dsn, schema="upbit_2")
    other.open()
    other.write(Batch([trade(1)]))
    other.close()
    assert query("SELECT count(*) FROM upbit_2.trades") == [(1,)]


def test_what_another_program_has_made_is_refused_and_left_alone(dsn, query):
    query("CREATE SCHEMA upbit")
    query("CREATE TABLE upbit.trades (price real)")
    with pytest.raises(InvalidRequestError, match="tables of another program in schema upbit"):
        PostgresSink(dsn).open()
    assert query("SELECT count(*) FROM pg_class WHERE relnamespace = 'upbit'::regnamespace") == [(1,)]


def test_tables_of_the_same_names_elsewhere_in_the_database_stay_as_they_are(dsn, query):
    query("CREATE TABLE public.trades (price real)")
    sink = PostgresSink(dsn)
    sink.open()
    sink.write(Batch([trade(1)]))
    sink.close()
    assert query("SELECT count(*) FROM public.trades") == [(0,)]


def test_who_may_not_make_a_schema_may_use_one_that_was_made_for_him(server, dsn, query):
    query("CREATE ROLE guest LOGIN PASSWORD '{}'".format(PASSWORD.replace("'", "''")))
    try:
        theirs = server.dsn(dsn.split("dbname=")[1].split()[0], user="guest")
        with pytest.raises(InvalidRequestError, match="permission denied"):
            PostgresSink(theirs).open()
        query("CREATE SCHEMA upbit AUTHORIZATION guest")
        sink = PostgresSink(theirs)
        sink.open()
        assert sink.write(Batch([trade(1)])) == 1
        sink.close()
    finally:
        query("DROP OWNED BY guest CASCADE")
        query("DROP ROLE guest")


def test_where_there_is_timescale_the_tables_are_made_hypertables(dsn, query):
    """By a stand-in of the one function of TimescaleDB's that is called, which wants what that wants of a key; beside
    it the newer one of that name."""
    query("CREATE TYPE public.dimension_info AS (column_name name)")
    query(
        """CREATE FUNCTION public.create_hypertable(relation regclass, dimension public.dimension_info,
            create_default_indexes boolean DEFAULT true, if_not_exists boolean DEFAULT false,
            migrate_data boolean DEFAULT false) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN RAISE 'not this one'; END $$"""
    )
    query(
        """CREATE FUNCTION public.create_hypertable(relation regclass, time_column_name name,
            partitioning_column name DEFAULT NULL, number_partitions integer DEFAULT NULL,
            chunk_time_interval anyelement DEFAULT NULL::bigint) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid
                AND a.attnum = ANY (i.indkey) WHERE i.indrelid = relation AND i.indisprimary
                AND a.attname = time_column_name)
            THEN RAISE 'cannot create a unique index without the column %', time_column_name; END IF;
            EXECUTE format('COMMENT ON TABLE %s IS %L', relation, 'hypertable by ' || chunk_time_interval);
        END $$"""
    )
    sink = PostgresSink(dsn)
    sink.open()
    made = query("SELECT obj_description(c.oid) FROM pg_class c WHERE c.relnamespace = 'upbit'::regnamespace "
                 "AND relkind = 'r' AND relname IN ('trades', 'candles', 'tickers', 'orderbooks')")  # fmt: skip
    assert made == [("hypertable by 1 day",)] * 4
    batch = Batch([trade(1), candle(0), ticker(1), book(1)])
    assert (sink.write(batch), sink.write(batch)) == (4, 0)
    sink.close()


def test_a_server_that_comes_back_empty_is_furnished_anew(sink, query):
    sink.write(Batch([trade(1)]))
    query("DROP SCHEMA upbit CASCADE")
    with pytest.raises(Exception, match="does not exist"):
        sink.write(Batch([trade(2)]))
    assert sink.write(Batch([trade(2)])) == 1  # as the recorder does, for as long as it takes
    assert query("SELECT count(*) FROM upbit.trades") == [(1,)]


def test_a_spill_file_belongs_to_one_recorder(dsn, tmp_path):
    first = PostgresSink(dsn, spill=tmp_path / "waiting")
    first.open()
    with pytest.raises(FileInUseError):
        PostgresSink(dsn, spill=tmp_path / "waiting").open()
    first.close()


def test_the_schema_is_of_the_version_it_says():
    """Whoever changes a model changes the tables: then the version is another, and this text is, too."""
    assert schema().splitlines()[0] == (
        "CREATE TABLE trades (symbol text NOT NULL, price numeric, volume numeric, side text, timestamp timestamptz, "
        "sequential_id bigint NOT NULL, source text, prev_closing_price numeric, change_amount numeric, "
        "best_ask_price numeric, best_ask_size numeric, best_bid_price numeric, best_bid_size numeric, "
        "published_at timestamptz, stream_type text, is_backfilled boolean, received_at timestamptz, "
        "PRIMARY KEY (symbol, sequential_id));"
    )


# Over the simulator


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_recorder, "COVERAGE_SECONDS", 0.3)
    monkeypatch.setattr(sink_recorder, "LAST_COVERAGE_SECONDS", 0.3)
    monkeypatch.setattr(sink_recorder, "FILL_AGAIN_SECONDS", 0.5)
    monkeypatch.setattr(sink_writer, "FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(sink_writer, "LONGEST_PAUSE_SECONDS", 0.2)


def lacking(upbit: Any, query: Query, symbol: str) -> list[int]:
    """Trades of the simulator's that the database says it has, and has not."""
    have = {number for (number,) in query("SELECT sequential_id FROM upbit.trades WHERE symbol = %s", symbol)}
    known = whole(query, symbol)

    def is_told(moment: datetime) -> bool:
        return any(each.start <= moment < each.end for each in known)

    told = [row for row in upbit.trades(symbol) if is_told(from_micros(row["trade_timestamp"] * 1000))]
    return [row["sequential_id"] for row in told if row["sequential_id"] not in have]


def has_all(upbit: Any, query: Query, since: datetime) -> bool:
    """Whether of each symbol all is complete from the beginning until some time after `since`, in one piece."""
    found = [whole(query, symbol) for symbol in SYMBOLS]
    return all(len(each) == 1 and each[0].end > since for each in found)


def now(upbit: Any) -> datetime:
    return from_micros(upbit.now_ms() * 1000)


@pytest.mark.slow
@pytest.mark.usefixtures("hasty")
def test_a_server_that_is_killed_and_comes_back_costs_no_row_and_doubles_none(
    upbit, market: MarketDataBackbone, server, dsn, query, monkeypatch
):
    monkeypatch.setattr(spool_module, "MEMORY_ROWS", 100)  # so that an outage outlasts it
    with market.record_to(PostgresSink(dsn), SYMBOLS, flush_seconds=0.1) as recorder:
        wait_until(lambda: recorder.stats.written)
        server.kill()
        wait_until(lambda: recorder.stats.error)
        wait_until(lambda: recorder.stats.spilled > 100, lambda: str(recorder.stats))
        back = now(upbit)
        server.start()
        wait_until(lambda: recorder.stats.error is None and not recorder.stats.waiting)
        wait_until(lambda: has_all(upbit, query, back), lambda: str(recorder.stats))
    assert recorder.stats.dropped == 0
    for symbol in SYMBOLS:
        assert lacking(upbit, query, symbol) == []
    assert query("SELECT count(*) FROM upbit.gaps WHERE NOT complete") == [(0,)]


@pytest.mark.slow
@pytest.mark.usefixtures("hasty")
def test_what_waits_when_a_recording_ends_is_written_by_the_next_one(upbit, server, dsn, query, tmp_path):
    spill = tmp_path / "waiting"
    with backbone(upbit) as market:
        recorder = market.record_to(PostgresSink(dsn, spill=spill), SYMBOLS, flush_seconds=0.1)
        wait_until(lambda: recorder.stats.written)
        server.kill()
        wait_until(lambda: recorder.stats.error and recorder.stats.waiting > 20)
        recorder.close(30.0)
    assert recorder.stats.dropped == 0
    waited = [row[5] for row in _trades_in(spill)]
    assert len(waited) > 20
    server.start()
    with backbone(upbit) as market:
        begun = now(upbit)
        with market.record_to(PostgresSink(dsn, spill=spill), SYMBOLS, flush_seconds=0.1):
            wait_until(lambda: has_all(upbit, query, begun))  # the hole between the two as well
    have = {number for (number,) in query("SELECT sequential_id FROM upbit.trades")}
    assert set(waited) <= have
    assert not spill.exists()
    for symbol in SYMBOLS:
        assert lacking(upbit, query, symbol) == []


@pytest.mark.slow
def test_the_command_line_records_into_it_until_it_is_told_to_end(upbit, dsn, query):
    command = [sys.executable, "-m", "upbit_backbone.cli", "record", "KRW-BTC", "--type", "trade", "--postgres", dsn]
    environment = {**os.environ, **upbit.environment(), "UPBIT_BACKBONE_LANGUAGE": "en"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True) as done:
        try:
            wait_until(lambda: query("SELECT to_regclass('upbit.trades')") != [(None,)])
            wait_until(lambda: query("SELECT count(*) FROM upbit.trades") != [(0,)])
            done.send_signal(signal.SIGINT)
            told = "".join(done.communicate(timeout=60.0))
        finally:
            done.kill()
    assert done.returncode == 0, told
    assert " written" in told
    assert PASSWORD not in told


def _trades_in(spill: Path) -> list[Any]:
    lines = spill.read_text(encoding="utf-8").splitlines()
    return [row for line in lines for row in json.loads(line)["rows"].get("trades", ())]
