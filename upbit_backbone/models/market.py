"""What flows: one exact, UTC-aware shape per kind of datum, whatever channel it came through.

Prices and sizes are `Decimal`s made from the text on the wire; times are aware UTC datetimes. `source` says where
a datum came from, `timestamp` is the exchange's own time, `received_at` ours. What Upbit left out, or wrote so that it
cannot be read, is None; a word that is not in our lists (a new `change`, say) stays the text it is. `degraded=True`
marks an answer given while the channel that should have given it was down. Equality compares what Upbit said, not when
we heard it. Numbers print plainly, however Upbit spelled them: see `number`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, SupportsIndex

from .enums import Change, DataSource, Side, StreamType
from .half_made import HalfMade, rest_of
from .jsonable import about_us
from .number import SmallDecimal, is_small, plain
from .readable import KST as KST
from .readable import Readable, moment, number

HUNDRED = Decimal(100)


class _Stamped(Readable):
    """What carries the exchange's time."""

    __slots__ = ()
    timestamp: datetime

    @property
    def timestamp_kst(self) -> datetime:
        """`timestamp` as Korean wall-clock time (aware, UTC+9)."""
        return self.timestamp.astimezone(KST)


class Framed(HalfMade):
    """Mixin of models with slots, which may be half-made, too: what may carry the very bytes it was read from, for who
    hands it on. They are no part of it: copies and comparisons know nothing of them."""

    __slots__ = ("_frame",)


_frame = Framed.__dict__["_frame"]
keep_frame = _frame.__set__  # past the frozenness
_get_frame = _frame.__get__


def frame_of(model: Framed) -> bytes | None:
    """What it was read from, where that was kept."""
    try:
        return _get_frame(model)  # type: ignore[no-any-return]
    except AttributeError:
        return None


@dataclass(frozen=True, slots=True, repr=False)
class TickerData(HalfMade, _Stamped):
    """The state of one market.

    `change_rate` is Upbit's signed fraction (0.01 is one per cent) and `change_amount` the signed difference, both
    against `prev_closing_price`, the close of the previous UTC day. Note that `high_24h` and `low_24h` carry the high
    and low of the current UTC day: Upbit publishes no rolling ones. `volume_24h` really is the rolling 24 hours.

    `timestamp` is when Upbit made this picture, `trade_timestamp` when the last trade in it happened. `…_today` counts
    since 00:00 UTC. The sides of the volume, the side of the last trade, the state of the market and `stream_type`
    come by WebSocket only and are None in REST answers.
    """

    symbol: str
    current_price: Decimal
    change_rate: Decimal | None
    change_amount: Decimal | None
    volume_24h: Decimal | None
    high_24h: Decimal | None
    low_24h: Decimal | None
    prev_closing_price: Decimal | None
    timestamp: datetime
    source: DataSource
    opening_price: Decimal | None = None
    traded_value_24h: Decimal | None = None
    volume_today: Decimal | None = None
    traded_value_today: Decimal | None = None
    change: Change | str | None = None
    last_trade_volume: Decimal | None = None
    last_trade_side: Side | str | None = None
    trade_timestamp: datetime | None = None
    ask_volume_today: Decimal | None = None
    bid_volume_today: Decimal | None = None
    highest_52_week_price: Decimal | None = None
    highest_52_week_date: date | None = None
    lowest_52_week_price: Decimal | None = None
    lowest_52_week_date: date | None = None
    market_state: str | None = None
    market_warning: str | None = None
    is_trading_suspended: bool | None = None
    delisting_date: date | None = None
    stream_type: StreamType | str | None = None
    received_at: datetime | None = about_us()
    degraded: bool = about_us(False)

    @property
    def change_percent(self) -> Decimal | None:
        """`change_rate` in per cent, exact."""
        return None if self.change_rate is None else plain(self.change_rate * HUNDRED)

    def _line(self) -> str:
        change = "" if self.change_percent is None else f" ({self.change_percent:+.2f} %)"
        return f"{self.symbol} {number(self.current_price)}{change} {moment(self.timestamp)} {_from(self)}"


@dataclass(frozen=True, slots=True, repr=False)
class TradeData(Framed, _Stamped):
    """One trade. `sequential_id` is unique per market, but ids are not in order (docs: recent-trades-history).

    `timestamp` is when it happened, `published_at` when Upbit sent it (WebSocket only, like the best prices).
    `change_amount` is signed on every channel: the price minus the close of the previous UTC day.
    """

    symbol: str
    price: Decimal
    volume: Decimal
    side: Side | str | None
    timestamp: datetime
    sequential_id: int | None
    source: DataSource
    prev_closing_price: Decimal | None = None
    change_amount: Decimal | None = None
    best_ask_price: Decimal | None = None
    best_ask_size: Decimal | None = None
    best_bid_price: Decimal | None = None
    best_bid_size: Decimal | None = None
    published_at: datetime | None = None
    stream_type: StreamType | str | None = None
    is_backfilled: bool = about_us(False)
    received_at: datetime | None = about_us()
    degraded: bool = about_us(False)

    def _line(self) -> str:
        side = {"BID": "buy", "ASK": "sell"}.get(str(self.side), str(self.side or "trade"))
        late = " backfilled" if self.is_backfilled else ""
        return f"{self.symbol} {side} {number(self.volume)} at {number(self.price)} {moment(self.timestamp)}{late}"


@dataclass(frozen=True, slots=True, repr=False)
class OrderbookUnit(Readable):
    """One price level of one side."""

    price: Decimal
    size: Decimal

    def _line(self) -> str:
        return f"{number(self.size)} at {number(self.price)}"


class UnspelledUnit(OrderbookUnit):
    """A level with a number below 0.000001, until somebody looks at it: then it is an OrderbookUnit for good.

    A book of such prices would spend 13 µs on sixty SmallDecimals, of which most are never looked at; this costs it
    nothing, and the level that is looked at 0.5 µs. It must not be told from what it becomes, so whatever asks an
    attribute turns it first, and so do the methods that Python calls past the attributes.
    """

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        return getattr(_spelled(self), name)

    def __eq__(self, other: object) -> bool:
        return _spelled(self) == other

    def __hash__(self) -> int:
        return hash(_spelled(self))

    def __repr__(self) -> str:
        return repr(_spelled(self))

    def __str__(self) -> str:
        return str(_spelled(self))

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        return _spelled(self).__reduce_ex__(protocol)


_price, _size = OrderbookUnit.__dict__["price"], OrderbookUnit.__dict__["size"]
_get_price, _get_size, _set_class = _price.__get__, _size.__get__, object.__setattr__


def _spelled(unit: OrderbookUnit) -> OrderbookUnit:
    # Two threads may be here with one unit: both write the same numbers, and the class last.
    if is_small(price := _get_price(unit)):
        _price.__set__(unit, SmallDecimal(price))
    if is_small(size := _get_size(unit)):
        _size.__set__(unit, SmallDecimal(size))
    _set_class(unit, "__class__", OrderbookUnit)
    return unit


@dataclass(frozen=True, slots=True, repr=False)
class OrderbookData(HalfMade, _Stamped):
    """A whole order book: `asks` from the cheapest up, `bids` from the dearest down; padding is already removed.

    The totals cover the whole book as Upbit counts it, also when fewer levels were asked for. `timestamp` is the last
    change of the book, so a quiet book is old without being stale. `level` is the price grouping, 0 for none.
    """

    symbol: str
    asks: tuple[OrderbookUnit, ...]
    bids: tuple[OrderbookUnit, ...]
    total_ask_size: Decimal | None
    total_bid_size: Decimal | None
    timestamp: datetime
    source: DataSource
    level: Decimal = Decimal(0)
    stream_type: StreamType | str | None = None
    received_at: datetime | None = about_us()
    degraded: bool = about_us(False)

    @property
    def best_ask(self) -> OrderbookUnit | None:
        """The cheapest offer; None while nobody sells."""
        if (rest := rest_of(self)) is not None and (best := rest.best()) is not None:
            return best[0]  # type: ignore[no-any-return]  # without making the others
        return self.asks[0] if self.asks else None

    @property
    def best_bid(self) -> OrderbookUnit | None:
        """The highest bid; None while nobody buys."""
        if (rest := rest_of(self)) is not None and (best := rest.best()) is not None:
            return best[1]  # type: ignore[no-any-return]
        return self.bids[0] if self.bids else None

    @property
    def spread(self) -> Decimal | None:
        """Best ask minus best bid; None while a side is empty."""
        ask, bid = self.best_ask, self.best_bid
        return plain(ask.price - bid.price) if ask and bid else None

    @property
    def mid_price(self) -> Decimal | None:
        """Halfway between best ask and best bid, exact; None while a side is empty."""
        ask, bid = self.best_ask, self.best_bid
        return plain((ask.price + bid.price) / 2) if ask and bid else None

    @property
    def spread_percent(self) -> Decimal | None:
        """Spread in per cent of the best bid; None while a side is empty."""
        ask, bid = self.best_ask, self.best_bid
        return plain(plain(ask.price - bid.price) / bid.price * HUNDRED) if ask and bid else None

    def _line(self) -> str:
        bid, ask = (number(unit.price if unit else None) for unit in (self.best_bid, self.best_ask))
        depth = f"{len(self.bids)}+{len(self.asks)} levels"
        return f"{self.symbol} {bid} / {ask} {depth} {moment(self.timestamp)} {_from(self)}"


@dataclass(frozen=True, slots=True, repr=False)
class CandleData(_Stamped):
    """One candle. `timestamp` is the start of its period (UTC); `timeframe` our word for the unit ("1m", "1d").

    `last_trade_at` is when its last trade was stored, sometimes a little after the period. `change_amount` and
    `change_rate` (signed) come with days in REST only. `is_closed=False` marks the forming candle; `is_filled=True`
    one that we made up from the previous close because nobody traded (only with `fill="forward"`);
    `is_backfilled=True` one of a stream that a break had cost and REST brought.
    """

    symbol: str
    timeframe: str
    open_price: Decimal
    high_price: Decimal
    low_price: Decimal
    close_price: Decimal
    volume: Decimal
    timestamp: datetime
    source: DataSource
    traded_value: Decimal | None = None
    last_trade_at: datetime | None = None
    prev_closing_price: Decimal | None = None
    change_amount: Decimal | None = None
    change_rate: Decimal | None = None
    converted_close_price: Decimal | None = None
    first_day_of_period: date | None = None
    stream_type: StreamType | str | None = None
    is_closed: bool = about_us(True)
    is_filled: bool = about_us(False)
    is_backfilled: bool = about_us(False)
    received_at: datetime | None = about_us()
    degraded: bool = about_us(False)

    def breakout_target(self, k: Decimal | float | str) -> Decimal:
        """The price at which the next period breaks out: this close plus `k` times this range, exact.

        A float `k` counts as what it prints: 0.3 is three tenths. Written out with a float it is a TypeError, because
        Python does not mix Decimal and float.
        """
        return plain(self.close_price + (self.high_price - self.low_price) * Decimal(str(k)))

    def _line(self) -> str:
        prices = (self.open_price, self.high_price, self.low_price, self.close_price)
        state = "filled" if self.is_filled else "closed" if self.is_closed else "forming"
        shown = " ".join(f"{name}={number(price)}" for name, price in zip("OHLC", prices, strict=True))
        return f"{self.symbol} {self.timeframe} {moment(self.timestamp)} {shown} V={number(self.volume)} {state}"


@dataclass(frozen=True, slots=True, repr=False)
class Instrument(Readable):
    """What Upbit allows in one market: the tick at its present price and the price groupings it offers (None where
    Upbit does not say, as in its regions)."""

    symbol: str
    source: DataSource
    quote_currency: str | None = None
    tick_size: Decimal | None = None
    supported_levels: tuple[Decimal, ...] | None = None
    received_at: datetime | None = about_us()

    def _line(self) -> str:
        return f"{self.symbol} tick {number(self.tick_size)}"


@dataclass(frozen=True, slots=True, repr=False)
class MarketInfo(Readable):
    """One listed market. `cautions` are the names of the caution flags that are up."""

    symbol: str
    korean_name: str | None
    english_name: str | None
    source: DataSource
    warning: bool | None = None
    cautions: tuple[str, ...] | None = None
    market_warning: str | None = None
    timestamp: datetime | None = about_us()
    received_at: datetime | None = about_us()
    degraded: bool = about_us(False)

    @property
    def timestamp_kst(self) -> datetime | None:
        """`timestamp` as Korean wall-clock time (aware, UTC+9); None where there is none."""
        return None if self.timestamp is None else self.timestamp.astimezone(KST)

    @property
    def quote(self) -> str:
        """What it is priced in: "KRW" of "KRW-BTC"."""
        return self.symbol.partition("-")[0]

    @property
    def base(self) -> str:
        """What is traded: "BTC" of "KRW-BTC"."""
        return self.symbol.partition("-")[2]

    def _line(self) -> str:
        cautions = ", ".join([*(["WARNING"] if self.warning else []), *(self.cautions or ())])
        return f"{self.symbol} {self.korean_name or '–'} ({self.english_name or '–'}) {cautions}".rstrip()


def _from(item: TickerData | OrderbookData) -> str:
    return f"{item.source.value}, degraded" if item.degraded else item.source.value


UnifiedTickerData = TickerData
UnifiedCandleData = CandleData
UnifiedOrderbookData = OrderbookData
UnifiedTradeData = TradeData
