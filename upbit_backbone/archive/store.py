"""Store: reads what a `SqliteSink` kept, says what of it is complete, and has fetched what is missing.

store = Store("day.db")
store.trades("KRW-BTC", start="2026-01-31 09:00+09:00")
store.coverage("KRW-BTC", "trade")
store.fill(market)
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from .._arguments import Moment, aware, utc_day
from .._concurrency import get_logger
from .._language import spoken
from ..errors import InvalidRequestError, one_line
from ..exchange.markets import normalise_symbol
from ..exchange.timeframes import Timeframe, timeframe_of
from ..export.dataframe import Numbers, Rows
from ..history.aggregate import candles_from_trades
from ..models.enums import DataType, Priority
from ..models.jsonable import Jsonable
from ..models.market import CandleData, OrderbookData, TickerData, TradeData
from ..models.readable import Readable
from ..models.readable import moment as in_korean_time
from ..sinks import trade_rows
from ..sinks.base import Hole, Span
from ..sinks.columnar import frame_of, query
from ..sinks.columns import TABLE_NAMED, Table, candle_type, from_micros, to_micros
from ..sinks.coverage import Coverage, CoverageState, Interval, coverage
from ..sinks.filling import HoleFiller, is_fillable, oldest_trade
from ..sinks.sqlite import FOLDER_STORE, SqliteSink, check_schema, connect, ledger_of
from .bars import bars_by

if TYPE_CHECKING:
    from ..history.download import CancelToken
    from ..models.report import HealthReport

log = get_logger("upbit_backbone.archive")

DAY: Final = timedelta(days=1)
# How a key that Upbit left out was stored, back into None.
_STORED_AS: Final = {
    "sequential_id": "CASE WHEN sequential_id < 0 THEN NULL ELSE sequential_id END",
    "volume_today": "nullif(volume_today, '')",
}


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """One connection for one look: its snapshot stays the same, and no thread has to share it."""
    if not path.is_file():
        raise InvalidRequestError(f"{one_line(path)}: there is no such store")
    try:
        with contextlib.closing(connect(path, read_only=True)) as connection:
            check_schema(connection, path)
            yield connection
    except sqlite3.Error as error:
        raise InvalidRequestError(f"{one_line(path)} cannot be read: {one_line(error)}") from error


def select(
    connection: sqlite3.Connection, table: Table, tests: Mapping[str, Any], order: str, limit: int | None = None
) -> Iterator[Any]:
    """The items of a table that pass `tests`: each of SQL's words and what goes into its "?", a tuple for several."""
    name, columns = table.name, ", ".join(_STORED_AS.get(column, column) for column in table.names)
    read: Callable[[Sequence[Any]], Any] = table.item
    if table is trade_rows.TRADES and trade_rows.has_trade_rows(connection):  # without a look into its list per column
        name, columns, read = "trade_rows", trade_rows.SELECTED, trade_rows.trade_of
    values = [each for value in tests.values() for each in (value if isinstance(value, tuple) else (value,))]
    # Every part of it is a word of ours; what was asked for goes in as values.
    query = f"SELECT {columns} FROM {name} WHERE {' AND '.join(tests)} ORDER BY {order}"  # noqa: S608
    for row in connection.execute(query if limit is None else f"{query} LIMIT {limit}", values):
        yield read(row)


class Market(Protocol):
    """What `Store.fill` asks: a MarketDataBackbone."""

    def iter_trades(
        self, symbol: str, *, since: Moment | None, priority: Priority, cancel: CancelToken | None
    ) -> Iterable[TradeData]: ...

    def iter_candles(
        self,
        symbol: str,
        timeframe: str,
        *,
        start: Moment | None,
        end: Moment | None,
        priority: Priority,
        cancel: CancelToken | None,
    ) -> Iterable[CandleData]: ...

    def health(self) -> HealthReport: ...


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TopicQuality(Readable):
    """One topic of one day: how many `rows` there are, how many seconds of the day are complete or lack something, and
    the stretches that do. `share` is the complete part of what was asked about, 0 to 1. `str()` is for people."""

    symbol: str
    type: str
    rows: int
    complete_seconds: float
    missing_seconds: float
    holes: tuple[Coverage, ...]

    @property
    def share(self) -> float:
        whole = self.complete_seconds + self.missing_seconds
        return self.complete_seconds / whole if whole else 0.0

    def _line(self) -> str:
        return spoken(f"{self.symbol} {self.type}: {self.rows:,} rows, {self.share:.2%} of the day complete")


NOT_KEPT: Final = "Upbit keeps trades of seven days only"
TOO_RECENT: Final = "so recent that Upbit's answers may still change: fill again some seconds later"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Unfilled(Readable):
    """What a `fill` left missing, from `start` on and before `end` (None: until recording goes on), and why."""

    symbol: str
    type: str
    start: datetime
    end: datetime | None
    reason: str

    def _line(self) -> str:
        return spoken(f"{self.symbol} {self.type}, from {in_korean_time(self.start)}: {spoken(self.reason)}")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class FillReport(Readable):
    """What a `fill` did. Of the holes it asked about, `closed` are closed or smaller now, `open` as they were; `items`
    were new. `left` says what of them is still missing, and why: Upbit keeps it no more, has no such market any more,
    or it is of the last few seconds, of which nobody can say yet that all is there.

    Everything that was recorded ends with a hole that is open until recording goes on; one that was closed up to now
    is in `closed`. A hole without a trade in it is closed as well, with no new item."""

    closed: int
    open: int
    items: int
    left: tuple[Unfilled, ...] = ()

    def _line(self) -> str:
        return spoken(f"{self.items:,} items fetched, {self.closed} holes closed, {self.open} still open")


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketState(Jsonable):
    """A market as it was `at` a moment: the newest of each kind by Upbit's own time, None where none was kept. Whether
    anything was missed just before is `coverage`'s to say."""

    symbol: str
    at: datetime
    ticker: TickerData | None
    orderbook: OrderbookData | None
    trade: TradeData | None


class Store:
    """A recorded store, for reading: a file of `SqliteSink`, or a folder of `ParquetSink`, `CsvSink` or `JsonlSink`.
    Thread-safe; a recorder may write at the same time.

    Raises InvalidRequestError here and in every method for a file that is no store of this version. Times are aware
    datetimes or ISO 8601 text with a zone; `start` is inclusive, `end` exclusive, None is the beginning or the end of
    what there is. Models come out equal to what went in.
    """

    def __init__(self, path: str | Path) -> None:
        given = Path(path)
        self.path = given / FOLDER_STORE if given.is_dir() else given
        with reading(self.path):
            pass

    # ── what is there ────────────────────────────────────────────────────────────────────────────────────────────

    def topics(self) -> list[tuple[str, str]]:
        """What was recorded: (symbol, type) pairs such as ("KRW-BTC", "trade")."""
        with reading(self.path) as connection:
            return ledger_of(connection).topics()

    def reached(self) -> datetime | None:
        """Until when, by Upbit's time, the recording is known to have come; None where nothing was recorded."""
        with reading(self.path) as connection:
            micros = connection.execute('SELECT max("end") FROM coverage').fetchone()[0]
        return None if micros is None else from_micros(micros)

    def trades(self, symbol: str, start: Moment | None = None, end: Moment | None = None) -> Rows[TradeData]:
        """Trades, oldest first; those of one moment by their ids."""
        return Rows.of(TradeData, list(self._items("trades", symbol, start, end, "timestamp, sequential_id")))

    def iter_trades(self, symbol: str, start: Moment | None = None, end: Moment | None = None) -> Iterator[TradeData]:
        """The same one by one, holding none. A recorder's file cannot shrink while the walk is under way."""
        _span(start, end)
        return self._items("trades", symbol, start, end, "timestamp, sequential_id")

    def candles(
        self, symbol: str, timeframe: str = "1m", start: Moment | None = None, end: Moment | None = None
    ) -> Rows[CandleData]:
        """Candles as they were recorded, oldest first. `is_closed` also where it is known by now that the period was
        over: a later candle came, or all until its end was collected."""
        unit = timeframe_of(timeframe)
        rows = list(self._items("candles", symbol, start, end, "timestamp", timeframe=unit.word))
        if rows and not rows[-1].is_closed:
            known = self.coverage(symbol, candle_type(unit.word))
            is_over = bool(known) and known[-1].end >= unit.next_start(rows[-1].timestamp)
            is_over = is_over or self._has_later(rows[-1])
            rows[-1] = replace(rows[-1], is_closed=is_over)
        rows[:-1] = [row if row.is_closed else replace(row, is_closed=True) for row in rows[:-1]]
        return Rows.of(CandleData, rows)

    def _has_later(self, candle: CandleData) -> bool:
        with reading(self.path) as connection:
            found = connection.execute(
                "SELECT 1 FROM candles WHERE symbol = ? AND timeframe = ? AND timestamp > ? LIMIT 1",
                (candle.symbol, candle.timeframe, to_micros(candle.timestamp)),
            ).fetchone()
        return found is not None

    def tickers(self, symbol: str, start: Moment | None = None, end: Moment | None = None) -> list[TickerData]:
        """Tickers, oldest first: every one that came."""
        return list(self._items("tickers", symbol, start, end, "timestamp, rowid"))

    def orderbooks(
        self,
        symbol: str,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        level: Decimal | int | str = 0,
    ) -> list[OrderbookData]:
        """Order books of the price grouping `level`, oldest first."""
        grouping = str(Decimal(str(level)))
        return list(self._items("orderbooks", symbol, start, end, "timestamp", level=grouping))

    def bars(
        self,
        symbol: str,
        timeframe: str | None = None,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        ticks: int | None = None,
        volume: Decimal | int | str | None = None,
        value: Decimal | int | str | None = None,
    ) -> Rows[CandleData]:
        """Candles made of the stored trades, exactly: of a `timeframe` ("1m", "1d", …), or of so many trades (`ticks`),
        so much `volume` (coins) or `value` (quote currency) each; one of the four. Those not by time close with the
        trade that fills them. Where trades are missing they are wrong in silence: ask `coverage`."""
        asked = {"ticks": ticks, "volume": volume, "value": value}
        sizes = {kind: size for kind, size in asked.items() if size is not None}
        if len(sizes) + (timeframe is not None) != 1:
            raise InvalidRequestError("bars: give one of timeframe, ticks=, volume= and value=")
        trades = self._items("trades", symbol, start, end, "timestamp, sequential_id")
        if timeframe is not None:
            return Rows.of(CandleData, candles_from_trades(trades, timeframe))
        ((kind, size),) = sizes.items()
        return Rows.of(CandleData, bars_by(kind, size, trades))

    def as_of(self, symbol: str, moment: Moment) -> MarketState:
        """The market as it was: the last ticker, order book and trade until then."""
        code, at = normalise_symbol(symbol), aware(moment, "moment")

        def latest(table: str, order: str, **equal: str) -> Any:
            return next(self._items(table, code, None, at + timedelta(microseconds=1), order, limit=1, **equal), None)

        return MarketState(
            symbol=code,
            at=at,
            ticker=latest("tickers", "timestamp DESC, rowid DESC"),
            orderbook=latest("orderbooks", "timestamp DESC", level="0"),
            trade=latest("trades", "timestamp DESC, sequential_id DESC"),
        )

    def _items(
        self,
        name: str,
        symbol: str,
        start: Moment | None,
        end: Moment | None,
        order: str,
        *,
        limit: int | None = None,
        **equal: str,
    ) -> Iterator[Any]:
        code, (first, stop) = normalise_symbol(symbol), _span(start, end)
        tests: dict[str, Any] = {"symbol = ?": code, **{f"{column} = ?": value for column, value in equal.items()}}
        bounds = {"timestamp >= ?": first, "timestamp < ?": stop}
        tests |= {test: to_micros(bound) for test, bound in bounds.items() if bound is not None}
        with reading(self.path) as connection:
            yield from select(connection, TABLE_NAMED[name], tests, order, limit)

    # ── as tables ────────────────────────────────────────────────────────────────────────────────────────────────

    def table(
        self,
        name: str,
        symbol: str | None = None,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        columns: Sequence[str] | None = None,
        numbers: Numbers = "exact",
    ) -> Any:
        """`name` ("trades", "candles", "tickers", "orderbooks", "coverage", "gaps") as a pyarrow Table (extra
        `[parquet]`), of one market or all, ordered by time. `numbers="exact"` gives decimals, "float" float64, each the
        one nearest to the exact number; times and ids are exact either way. No models are made, so many rows come
        many times as fast; a few `columns` alone several times as fast again. InvalidRequestError for a name
        that is none. `.to_pandas()` and `polars.from_arrow(…)` make frames of it."""
        code, (first, stop) = None if symbol is None else normalise_symbol(symbol), _span(start, end)
        with reading(self.path) as connection:
            return frame_of(connection, name, code, first, stop, columns, numbers)

    def sql(self, statement: str, **parameters: Any) -> Any:
        """What DuckDB answers to `statement` over the tables of the store, as a pyarrow Table (extra `[duckdb]`).

            store.sql("select symbol, sum(price * volume) from trades where timestamp >= $since group by 1", since=…)

        Decimals are exact. The tables a statement names are read whole; where that is too much, give `table` bounds and
        hand its result to DuckDB. InvalidRequestError for what DuckDB does not understand.
        """
        with reading(self.path) as connection:
            return query(connection, statement, parameters)

    # ── what is complete ─────────────────────────────────────────────────────────────────────────────────────────

    def coverage(
        self,
        symbol: str,
        type: DataType | str = DataType.TRADE,  # noqa: A002 - as everywhere: what kind of data
        start: Moment | None = None,
        end: Moment | None = None,
    ) -> list[Coverage]:
        """Every stretch of [start, end), in order and without a hole, as COMPLETE, PARTIAL or MISSING with the reason.

        By default from where recording began to where it is known to have reached. COMPLETE means that everything Upbit
        published in that time of its own is there. Empty where nothing was recorded and no bounds are given.
        """
        code, word, (first, stop) = normalise_symbol(symbol), _type_word(type), _span(start, end)
        with reading(self.path) as connection:
            ledger = ledger_of(connection)
            spans, gaps = ledger.spans(code, word), ledger.gaps(code, word)
        if not spans and (first is None or stop is None):
            return []
        first = spans[0].start if first is None else first
        stop = spans[-1].end if stop is None else stop
        return coverage(spans, gaps, Interval(first, stop)) if first < stop else []

    def quality(self, day: date | Moment) -> list[TopicQuality]:
        """What there is of one UTC day ("2026-01-31", a date, or a time in it), topic by topic, and what of it is
        missing."""
        midnight = utc_day(day, "day")
        return [self._quality(symbol, kind, midnight) for symbol, kind in self.topics()]

    def _quality(self, symbol: str, kind: str, midnight: datetime) -> TopicQuality:
        stretches = self.coverage(symbol, kind, midnight, midnight + DAY)
        holes = tuple(each for each in stretches if each.state is not CoverageState.COMPLETE)
        return TopicQuality(
            symbol=symbol,
            type=kind,
            rows=self._count(symbol, kind, midnight),
            complete_seconds=sum(each.seconds for each in stretches if each.state is CoverageState.COMPLETE),
            missing_seconds=sum(each.seconds for each in holes),
            holes=holes,
        )

    def _count(self, symbol: str, kind: str, midnight: datetime) -> int:
        table = "candles" if kind.startswith("candle.") else f"{kind}s"
        values: list[Any] = [symbol, to_micros(midnight), to_micros(midnight + DAY)]
        query = f"SELECT count(*) FROM {table} WHERE symbol = ? AND timestamp >= ? AND timestamp < ?"  # noqa: S608
        if table == "candles":
            query += " AND timeframe = ?"
            values.append(timeframe_of(kind).word)
        with reading(self.path) as connection:
            count: int = connection.execute(query, values).fetchone()[0]
        return count

    # ── fetching what is missing ─────────────────────────────────────────────────────────────────────────────────

    def holes(self) -> list[Hole]:
        """What is missing between what is complete; the last of each topic is open (`end` None): it ends now."""
        with reading(self.path) as connection:
            return ledger_of(connection).holes()

    def fill(
        self,
        market: Market,
        symbol: str | None = None,
        type: DataType | str | None = None,  # noqa: A002 - as everywhere: what kind of data
        *,
        since: Moment | None = None,
        cancel: CancelToken | None = None,
    ) -> FillReport:
        """Ask Upbit, through `market`, for what is missing of trades and candles: of all topics, or of one symbol or
        type; from `since` on.

        Trades of seven days can be had, tickers and order books of the past never. Blocks until all is asked for (a
        busy market's day of trades takes about a minute) and keeps what has come whatever happens. Raises what asking
        raises, DownloadCancelledError soon after `cancel.is_set()`, and FileInUseError while a recorder writes, which
        fills by itself.
        """
        code = None if symbol is None else normalise_symbol(symbol)
        word = None if type is None else _type_word(type)
        first = None if since is None else aware(since, "since")
        low = Priority.LOW  # whoever asks something now goes first

        def candles(name: str, unit: Timeframe, start: datetime, end: datetime) -> Iterable[CandleData]:
            return market.iter_candles(name, unit.word, start=start, end=end, priority=low, cancel=cancel)

        filler = HoleFiller(
            lambda name, moment: market.iter_trades(name, since=moment, priority=low, cancel=cancel),
            candles,
            lambda: _exchange_now(market),
        )
        sink = SqliteSink(self.path)
        sink.open()
        try:
            holes = [hole for hole in sink.holes() if _is_asked(hole, code, word)]
            return _fill(sink, filler, [_later(hole, first) for hole in holes], _exchange_now(market))
        finally:
            sink.close()

    def __repr__(self) -> str:
        return f"<Store {one_line(self.path)}>"


def _fill(sink: SqliteSink, filler: HoleFiller, holes: Sequence[Hole], now: datetime) -> FillReport:
    closed = items = 0
    left: list[Unfilled] = []
    for hole in holes:
        filled: tuple[Span, ...] = ()
        try:
            for batch in filler.fill(hole):
                items += sink.write(batch)
                filled = batch.spans
        except InvalidRequestError as error:  # of a market that is gone Upbit has nothing more; the others have
            log.warning("%s of %s cannot be had again: %s", hole.type, hole.symbol, one_line(error))
            left.append(_unfilled(hole, hole.start, hole.end, one_line(error)))
        else:
            left += _left(hole, filled, now)
        closed += bool(filled)
    return FillReport(closed=closed, open=len(holes) - closed, items=items, left=tuple(left))


def _left(hole: Hole, filled: Sequence[Span], now: datetime) -> Iterator[Unfilled]:
    """What is missing of a hole although Upbit was asked."""
    start = hole.start
    if hole.type == DataType.TRADE.value and start < oldest_trade(now):
        start = min(oldest_trade(now), hole.end or now)
        yield _unfilled(hole, hole.start, start, NOT_KEPT)
    until = filled[0].end if filled else start
    if (not filled and hole.end is None) or (hole.end is not None and until < hole.end):
        yield _unfilled(hole, until, hole.end, TOO_RECENT)


def _unfilled(hole: Hole, start: datetime, end: datetime | None, reason: str) -> Unfilled:
    return Unfilled(symbol=hole.symbol, type=hole.type, start=start, end=end, reason=reason)


def _exchange_now(market: Market) -> datetime:
    """Upbit's time as the market's streams tell it: a clock of ours that is ahead must not close what is to come."""
    return datetime.now(UTC) - timedelta(seconds=market.health().clock_offset or 0.0)


def _is_asked(hole: Hole, symbol: str | None, kind: str | None) -> bool:
    is_wanted = symbol in (None, hole.symbol) and kind in (None, hole.type)
    return is_wanted and is_fillable(hole.type)


def _later(hole: Hole, since: datetime | None) -> Hole:
    return hole if since is None or since <= hole.start else hole._replace(start=since)


def _span(start: Moment | None, end: Moment | None) -> tuple[datetime | None, datetime | None]:
    first, stop = (None if each is None else aware(each, name) for each, name in ((start, "start"), (end, "end")))
    if first is not None and stop is not None and stop <= first:
        raise InvalidRequestError(f"start={start} and end={end}: the end must come after the start")
    return first, stop


def _type_word(kind: DataType | str) -> str:
    try:
        return DataType(kind).value
    except ValueError:
        return candle_type(timeframe_of(kind).word)  # of which Upbit streams none
