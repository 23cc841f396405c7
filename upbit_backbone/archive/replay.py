"""A store played again: what was kept comes in the order of Upbit's own time, and REST answers as of that time.

A store has no frames, so they are made of its rows, and none of what only the moment knew: everything comes at the very
time Upbit gave it, a candle with its last trade. Where something is missing, its topic does not stream and a GapEvent
says so at the end of it, as `coverage` knows it.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._concurrency import Clock, Deadline
from ..errors import ChannelUnavailableError, one_line
from ..exchange.endpoints import CANDLES, MARKETS, MAX_LEVELS, ORDERBOOKS, TICKERS, TICKERS_OF_QUOTES, TRADES, RestCall
from ..exchange.timeframes import Timeframe, timeframe_of
from ..exchange.values import utc_text
from ..history.aggregate import candles_from_trades, merged
from ..models.enums import DataType
from ..models.events import GapEvent
from ..models.market import CandleData
from ..models.request import Topic
from ..recorder.format import Record, RecordKind
from ..recorder.recording import Place
from ..recorder.replay import made_up_markets
from ..sinks.columns import TABLE_NAMED, Table, from_micros, to_micros
from ..sinks.coverage import TICK, Coverage, CoverageState
from ..unify.writer import encode_frame, encode_list
from ..wire.rest_transport import RestResponse
from .store import Store, reading, select

if TYPE_CHECKING:
    from ..wire.io_deadline import Departure

SESSION: Final = "store"
MADE_CANDLES: Final = 10_000  # that are remembered, of some 500 bytes each
_SQLITE_HEAD: Final = b"SQLite format 3\0"
_MICROSECOND: Final = timedelta(microseconds=1)
_WORDS: Final = frozenset(each.value for each in DataType)
_TIMEFRAME_OF: Final = {endpoint.path: word for word, endpoint in CANDLES.items()}
_ORDER: Final = {
    "trades": "timestamp, sequential_id",
    "candles": "timestamp",
    "tickers": "timestamp, rowid",
    "orderbooks": "timestamp",
}
# What a candle is made of, and no more: a day has so many trades that each column counts.
_FOR_CANDLES: Final = TABLE_NAMED["trades"].only(
    "symbol", "price", "volume", "side", "timestamp", "sequential_id", "source"
)
_LAST_TRADE: Final = "SELECT max(timestamp) FROM trades WHERE symbol = ? AND timestamp >= ? AND timestamp < ?"
_NEWEST: Final = {name: ", ".join(f"{column} DESC" for column in order.split(", ")) for name, order in _ORDER.items()}


def is_store(path: Path) -> bool:
    """Whether there is a store, or a folder that would have one, rather than a recording."""
    if path.is_dir():
        return True
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE_HEAD)) == _SQLITE_HEAD
    except OSError:
        return False


class Change(NamedTuple):
    """From `micros` on `topic` streams, or does not; and what its hole was, at the end of it."""

    micros: int
    topic: Topic
    is_on: bool
    gap: GapEvent | None = None


@dataclass(frozen=True)
class Kept:
    """One topic of a store: its rows in their table, and the stretches of it that are not complete."""

    topic: Topic
    table: Table
    tests: Mapping[str, Any]
    holes: tuple[Coverage, ...]
    reach: int = 0  # microseconds from a row's time to the latest at which it is known: a candle's with its last trade


class StoreRecording:
    """A store as `ReplaySource` plays it. Made of what the store has now; what a recorder adds later may come, too."""

    damage: None = None  # SQLite has whole rows or refuses

    def __init__(self, path: Path) -> None:
        self.store = Store(path)
        self.path = self.store.path
        with reading(self.path) as connection:
            self._kept = {each.topic: each for each in _kept(self.store, connection)}
            self.began = self._find_beginning(connection)

    @property
    def topics(self) -> frozenset[Topic]:
        return frozenset(self._kept)

    def _find_beginning(self, connection: sqlite3.Connection) -> datetime | None:
        known = [self.store.coverage(topic.symbol, topic.data_type) for topic in self._kept]
        starts = [stretches[0].start for stretches in known if stretches]
        firsts = [next(self._rows(connection, each, None, None), None) for each in self._kept.values()]
        starts += [from_micros(each[0]) for each in firsts if each is not None]
        return min(starts, default=None)

    def kept(self, topic: Topic) -> Kept | None:
        """Where a topic's rows are; None where it was not recorded."""
        return self._kept.get(topic)

    def hole(self, symbol: str, kind: DataType, moment: datetime) -> Coverage | None:
        """What is missing of a topic at `moment`; None where it is complete, or was not recorded at all."""
        holes = (each for kept in self._kept.values() if _is_of(kept, symbol, kind) for each in kept.holes)
        return next((each for each in holes if each.start <= moment < each.end), None)

    def streams_at(self, moment: datetime) -> list[Record]:
        """The one subscription in force at `moment`."""
        on = set(self._kept)
        for change in self._changes(None, to_micros(moment)):
            (on.add if change.is_on else on.discard)(change.topic)
        return [_subscribed(moment, 0.0, on)]

    def entries(
        self, since: datetime | None = None, until: datetime | None = None, *_: RecordKind
    ) -> Iterator[tuple[Place, Record | GapEvent]]:
        """Everything from `since` on and before `until`, in order, with what is missing."""
        for number, entry in enumerate(self._entries(since, until)):
            yield Place(0, 0, number), entry

    def _entries(self, since: datetime | None, until: datetime | None) -> Iterator[Record | GapEvent]:
        if self.began is None:
            return
        zero = to_micros(since or self.began)
        on = set(self._kept)
        if since is None:
            yield Record(RecordKind.BEGIN, 0.0, self.began, SESSION)
            yield _subscribed(self.began, 0.0, on)
        else:
            on = {topic for record in self.streams_at(since) for topic in _topics_in(record)}
        for micros, found in self.moments(since, until):
            yield from _moment(micros, (micros - zero) / 1e6, found, on)

    def moments(self, since: datetime | None = None, until: datetime | None = None) -> Iterator[tuple[int, list[Any]]]:
        """What happened, in order: microseconds since 1970, and the items of that moment, with each `Change` of what
        streams before them."""
        first, stop = (None if each is None else to_micros(each) for each in (since, until))
        changes = ((change.micros, change) for change in self._changes(first, stop))
        with reading(self.path) as connection:
            rows = [self._rows(connection, each, first, stop) for each in self._kept.values()]
            # In a tie what begins to stream comes before what it brings: `merge` takes the earlier source first.
            for micros, group in groupby(heapq.merge(changes, *rows, key=itemgetter(0)), key=itemgetter(0)):
                yield micros, [each for _, each in group]

    def _rows(
        self, connection: sqlite3.Connection, kept: Kept, first: int | None, stop: int | None
    ) -> Iterator[tuple[int, Any]]:
        """A topic's items with the time at which each is played, which never goes back."""
        reached = 0
        tests = dict(kept.tests)
        bounds = {"timestamp >= ?": None if first is None else first - kept.reach, "timestamp < ?": stop}
        tests |= {test: value for test, value in bounds.items() if value is not None}
        begins = 0 if first is None else first
        for item in select(connection, kept.table, tests, _ORDER[kept.table.name]):
            reached = max(reached, to_micros(_known_at(item)))
            if reached >= begins and (stop is None or reached < stop):
                yield reached, item

    def _changes(self, first: int | None, stop: int | None) -> list[Change]:
        found = [change for kept in self._kept.values() for change in self._changes_of(kept)]
        found = [each for each in found if (first is None or each.micros >= first)]
        found = [each for each in found if (stop is None or each.micros < stop)]
        return sorted(found, key=lambda each: each.micros)

    def _changes_of(self, kept: Kept) -> Iterator[Change]:
        with reading(self.path) as connection:
            for hole in kept.holes:
                # Of a hole there may be a beginning, written before a crash and never called complete.
                bounds = {"timestamp >= ?": to_micros(hole.start), "timestamp < ?": to_micros(hole.end)}
                last = next(select(connection, kept.table, {**kept.tests, **bounds}, "timestamp DESC", 1), None)
                quiet = hole.start if last is None else max(hole.start, _known_at(last) + _MICROSECOND)
                if quiet < hole.end:
                    yield Change(to_micros(quiet), kept.topic, is_on=False)
                yield Change(to_micros(hole.end), kept.topic, is_on=True, gap=_gap(kept.topic, hole))

    def __repr__(self) -> str:
        return f"<StoreRecording {one_line(self.path)}>"


def _kept(store: Store, connection: sqlite3.Connection) -> Iterator[Kept]:
    for symbol, word in store.topics():
        if word not in _WORDS:  # candles of a unit that nobody streams
            continue
        kind = DataType(word)
        stretches = store.coverage(symbol, kind)
        holes = tuple(each for each in stretches if each.state is not CoverageState.COMPLETE)
        tests: dict[str, Any] = {"symbol = ?": symbol}
        if kind is DataType.ORDERBOOK:
            for level in _levels(connection, symbol):
                topic = Topic(kind, symbol, Decimal(level))
                yield Kept(topic, TABLE_NAMED["orderbooks"], {**tests, "level = ?": level}, holes)
        elif kind in (DataType.TICKER, DataType.TRADE):
            yield Kept(Topic(kind, symbol), TABLE_NAMED[f"{word}s"], tests, holes)
        else:
            unit = timeframe_of(word)
            tests["timeframe = ?"] = unit.word
            yield Kept(Topic(kind, symbol), TABLE_NAMED["candles"], tests, holes, unit.seconds * 1_000_000)


def _levels(connection: sqlite3.Connection, symbol: str) -> Iterator[str]:
    # From one to the next through the index: DISTINCT would read every book of the market.
    level: str | None = ""
    while level is not None:
        level = connection.execute(
            "SELECT min(level) FROM orderbooks WHERE symbol = ? AND level > ?", (symbol, level)
        ).fetchone()[0]
        if level is not None:
            yield level


def _is_of(kept: Kept, symbol: str, kind: DataType) -> bool:
    return kept.topic.symbol == symbol and kept.topic.data_type is kind


def _known_at(item: Any) -> datetime:
    """When an item was as it is: whoever gets a candle earlier than that sees the future."""
    if isinstance(item, CandleData):
        end = timeframe_of(item.timeframe).next_start(item.timestamp)
        return max(item.timestamp, item.last_trade_at or end)
    moment: datetime = item.timestamp
    return moment


def _gap(topic: Topic, hole: Coverage) -> GapEvent:
    return GapEvent(
        at=hole.end,
        symbol=topic.symbol,
        type=topic.data_type,
        start=hole.start,
        end=hole.end,
        recovered=0,
        complete=False,
        reason=hole.reason,
        missing_start=hole.start,
        missing_end=hole.end - TICK,
    )


def _moment(micros: int, seconds: float, found: list[Any], on: set[Topic]) -> Iterator[Record | GapEvent]:
    """What happened at one moment: what streams now, what was missing until now, and what came."""
    wall = from_micros(micros)
    changes = [each for each in found if isinstance(each, Change)]
    before = set(on)
    for change in changes:
        (on.add if change.is_on else on.discard)(change.topic)
    if on != before:
        yield _subscribed(wall, seconds, on)
    yield from (each.gap for each in changes if each.gap is not None)
    blobs = tuple(encode_frame(each) for each in found if not isinstance(each, Change))
    if blobs:
        yield Record(RecordKind.FRAMES, seconds, wall, SESSION, 1, blobs)


def _subscribed(wall: datetime, seconds: float, topics: set[Topic]) -> Record:
    rows = sorted((each.data_type.value, each.symbol, str(each.level)) for each in topics)
    return Record(RecordKind.SUBSCRIBED, seconds, wall, SESSION, 1, details={"topics": rows})


def _topics_in(record: Record) -> Iterator[Topic]:
    for kind, symbol, level in (record.details or {})["topics"]:
        yield Topic(DataType(kind), symbol, Decimal(level))


# REST as of the time that is played.


class StoreTransport:
    """Stands in for RestTransport: answers from the store with what was known at the time that is played.

    ChannelUnavailableError, with the reason, for what was not recorded and where it is missing. Candles of a unit that
    was not recorded are made of trades, where those are complete.
    """

    is_awaited = False  # nobody waits here: at any time there is an answer, or none

    def __init__(self, recording: StoreRecording, clock: Clock) -> None:
        self._recording = recording
        self._clock = clock
        self._path = recording.path
        self._symbols = sorted({topic.symbol for topic in recording.topics})
        # By market, unit and start: a candle and until when it has been made. Whole values are exchanged, so that no
        # lock is needed: who asks at the same time makes one twice.
        self._made: dict[tuple[str, str, datetime], tuple[CandleData, datetime]] = {}
        self._answers: dict[str, Callable[[dict[str, str], datetime], list[Any]]] = {
            TICKERS.path: self._tickers,
            TICKERS_OF_QUOTES.path: self._tickers_of_quotes,
            ORDERBOOKS.path: self._orderbooks,
            TRADES.path: self._trades,
        }

    def get(self, call: RestCall, deadline: Deadline, departure: Departure | None = None) -> RestResponse:
        """See the class."""
        if departure is not None:
            departure.sent()
        now = self._clock.wall()
        body = self.body(call.path, dict(call.params), now)
        return RestResponse(200, {}, body, 0.0, len(body), now)

    def body(self, path: str, asked: dict[str, str], now: datetime) -> bytes:
        """What a GET of `path` with this query says at that time. KeyError or ValueError for a query that is none."""
        if path == MARKETS.path:
            return made_up_markets(self._symbols)
        if path in _TIMEFRAME_OF:
            return encode_list(self._candles(_TIMEFRAME_OF[path], asked, now))
        answer = self._answers.get(path)
        if answer is None:
            raise ChannelUnavailableError(f"{one_line(path)}: a store has no answer to this")
        return encode_list(answer(asked, now))

    def latest(self, topic: Topic, now: datetime) -> Any:
        """The newest of a topic at that time, whatever is missing; None where nothing is."""
        kept = self._recording.kept(topic)
        if kept is None:
            return None
        tests = {**kept.tests, "timestamp <= ?": to_micros(now)}
        with reading(self._path) as connection:
            found = select(connection, kept.table, tests, _NEWEST[kept.table.name])
            return next((each for each in found if _known_at(each) <= now), None)

    def _tickers(self, asked: dict[str, str], now: datetime) -> list[Any]:
        return [self._newest(Topic(DataType.TICKER, symbol), now) for symbol in asked["markets"].split(",")]

    def _tickers_of_quotes(self, asked: dict[str, str], now: datetime) -> list[Any]:
        quotes = asked["quote_currencies"].split(",")
        of_quotes = [symbol for symbol in self._symbols if symbol.partition("-")[0] in quotes]
        return [self._newest(Topic(DataType.TICKER, symbol), now) for symbol in of_quotes]

    def _orderbooks(self, asked: dict[str, str], now: datetime) -> list[Any]:
        count, level = int(asked.get("count", MAX_LEVELS)), Decimal(asked.get("level", "0"))
        topics = [Topic(DataType.ORDERBOOK, symbol, level) for symbol in asked["markets"].split(",")]
        books = [self._newest(topic, now) for topic in topics]
        return [replace(book, asks=book.asks[:count], bids=book.bids[:count]) for book in books]

    def _newest(self, topic: Topic, now: datetime) -> Any:
        self._check(topic.symbol, topic.data_type, now)
        found = self.latest(topic, now)
        if found is None:
            raise ChannelUnavailableError(
                f"{topic.symbol}: the store {one_line(self._path)} has no {topic.data_type} of that time"
            )
        return found

    def _check(self, symbol: str, kind: DataType, now: datetime) -> None:
        hole = self._recording.hole(symbol, kind, now)
        if hole is not None:
            raise ChannelUnavailableError(f"{symbol}: {kind} is missing in the store at that time: {hole.reason}")

    def _trades(self, asked: dict[str, str], now: datetime) -> list[Any]:
        symbol, days = asked["market"], int(asked.get("days_ago", 0))
        self._check(symbol, DataType.TRADE, now)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days)
        end = min(midnight + timedelta(days=1), now + _MICROSECOND)
        if "to" in asked:
            hours, minutes, seconds = map(int, asked["to"].split(":"))
            end = min(end, midnight + timedelta(hours=hours, minutes=minutes, seconds=seconds))
        tests = {"symbol = ?": symbol, "timestamp >= ?": to_micros(midnight), "timestamp < ?": to_micros(end)}
        with reading(self._path) as connection:
            if "cursor" in asked:
                number = int(asked["cursor"])
                at = _time_of(connection, number, tests)
                tests["(timestamp, sequential_id) < (?, ?)"] = (to_micros(end) if at is None else at, number)
            return list(select(connection, TABLE_NAMED["trades"], tests, _NEWEST["trades"], int(asked.get("count", 1))))

    def _candles(self, timeframe: str, asked: dict[str, str], now: datetime) -> list[Any]:
        """Newest first."""
        symbol, count, unit = asked["market"], int(asked.get("count", 1)), timeframe_of(timeframe)
        end = min(utc_text(asked["to"]), now + _MICROSECOND) if asked.get("to") else now + _MICROSECOND
        recorded = {topic.data_type for topic in self._recording.topics if topic.symbol == symbol}
        if unit.data_type in recorded:
            return self._recorded_candles(symbol, timeframe, count, end, now)
        if DataType.TRADE not in recorded:
            raise ChannelUnavailableError(f"{symbol}: neither {timeframe} candles nor trades were recorded")
        return self._made_candles(symbol, unit, count, end, now)

    def _made_candles(self, symbol: str, unit: Timeframe, count: int, end: datetime, now: datetime) -> list[CandleData]:
        """Of trades: periods that start before `end`, however much of them lies behind it."""
        since = unit.ceil(self._complete_since(symbol, now))  # a candle of half its trades is none
        stop, reached = unit.ceil(end), now + _MICROSECOND
        found: list[CandleData] = []
        with reading(self._path) as connection:
            # From one candle to the one before it: a quiet market has none of most periods.
            while len(found) < count:
                bounds = (symbol, to_micros(since), to_micros(min(stop, reached)))
                ((last,),) = connection.execute(_LAST_TRADE, bounds).fetchall()
                if last is None:
                    break
                stop = unit.floor(from_micros(last))
                found.append(self._made_candle(connection, symbol, unit, stop, min(unit.next_start(stop), reached)))
        return found

    def _made_candle(
        self, connection: sqlite3.Connection, symbol: str, unit: Timeframe, start: datetime, end: datetime
    ) -> CandleData:
        """Of the trades from `start` on and before `end`, of which there is one. Of a candle that was asked for before
        only the rest is read: a day has half a million trades, and programs ask for the forming one each second."""
        key = (symbol, unit.word, start)
        known, until = self._made.get(key, (None, start))
        if until > end:
            known, until = None, start
        tests = {"symbol = ?": symbol, "timestamp >= ?": to_micros(until), "timestamp < ?": to_micros(end)}
        rest = candles_from_trades(select(connection, _FOR_CANDLES, tests, _ORDER["trades"]), unit)
        candle = merged([each for each in (known, *rest) if each is not None], unit, start)
        if len(self._made) >= MADE_CANDLES:
            self._made.clear()
        self._made[key] = candle, end
        return candle

    def _recorded_candles(self, symbol: str, timeframe: str, count: int, end: datetime, now: datetime) -> list[Any]:
        tests = {"symbol = ?": symbol, "timeframe = ?": timeframe, "timestamp < ?": to_micros(end)}
        found = []
        with reading(self._path) as connection:
            for candle in select(connection, TABLE_NAMED["candles"], tests, "timestamp DESC"):
                if _known_at(candle) <= now:
                    found.append(candle)
                if len(found) == count:
                    break
        return found

    def _complete_since(self, symbol: str, now: datetime) -> datetime:
        """From when on all trades until `now` are there."""
        self._check(symbol, DataType.TRADE, now)
        stretches = self._recording.store.coverage(symbol, DataType.TRADE)
        starts = [each.start for each in stretches if each.state is CoverageState.COMPLETE and each.start <= now]
        if not starts:
            raise ChannelUnavailableError(f"{symbol}: no trades were recorded before that time")
        return starts[-1].astimezone(UTC)

    def begin(self) -> None:
        """Playing begins; the clock tells what is known."""

    def reached(self, place: Place) -> None:
        """Nothing waits for a place: answers go by the time."""

    def end(self) -> None:
        """Nothing more is played."""

    def close(self) -> None:
        """Nothing is held open between two answers."""

    def __repr__(self) -> str:
        return f"<StoreTransport {one_line(self._path)}>"


def _time_of(connection: sqlite3.Connection, number: int, tests: Mapping[str, Any]) -> int | None:
    """When the trade of that id was: looked for among those that pass `tests`, where it nearly always is, and then
    among all of the market, which takes as long as to look at each."""
    for known in (tests, dict(list(tests.items())[:1])):
        query = f"SELECT timestamp FROM trades WHERE {' AND '.join(known)} AND sequential_id = ?"  # noqa: S608
        found = connection.execute(query, (*known.values(), number)).fetchone()
        if found is not None:
            return int(found[0])
    return None
