"""The tolerant reader: one decoded message of any spelling becomes one model.

This is the whole meaning of the table, written plainly. The decoders in `typed` do the same from bytes, faster, for
messages of the usual shape; whatever they refuse comes here. Both give equal objects, and the tests hold them to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, overload

from ..errors import MalformedDataError, NoTradesYetError, UnknownTimeframeError
from ..exchange.fields import UNITS_KEY, Spelling
from ..exchange.timeframes import timeframe_of
from ..exchange.values import day_and_time, to_signed, whole
from ..models.enums import DataSource
from ..models.market import (
    CandleData,
    Instrument,
    MarketInfo,
    OrderbookData,
    OrderbookUnit,
    TickerData,
    TradeData,
)
from ..models.number import ZERO
from .reader import Reader, Tell, shown, spelling_of, tell_nobody

# The regions' way to say it (a word instead of Korea's `market_event`).
_REGIONAL_WARNINGS = {"CAUTION": True, "NONE": False}


class DataUnifier:
    """Decoded messages (numbers as Decimal or int) in Upbit's spellings become models.

    `source` says which channel the message came through and so which names to expect; DEFAULT and SIMPLE spellings
    of the WebSocket are told apart by themselves. A message that does not say what, when or how much is a
    `MalformedDataError` naming the field, a ticker whose price is null a `NoTradesYetError`. Any other field that
    cannot be read is None in the model and told to `tell`; unknown fields are ignored, and words we do not know (a new
    `change`, a new side) stay the text they are. Stateless, safe from any thread.
    """

    def unify_ticker_data(
        self,
        raw: Mapping[str, Any],
        source: DataSource,
        received_at: datetime | None = None,
        *,
        place: str = "",
        tell: Tell = tell_nobody,
    ) -> TickerData:
        """The present state of one market. MalformedDataError names what must be there (market, price, time) and is
        not; NoTradesYetError where Upbit lists a market that nobody has traded yet."""
        spelling = spelling_of(raw, source)
        reader = Reader("ticker", raw, spelling, place, tell)
        # Only null says that nobody has traded yet; a price that is missing altogether is a broken message.
        if _is_null(raw, reader.key("current_price")):
            raise NoTradesYetError(symbol=reader.value("symbol"))
        values = reader.model_fields()
        if values["change_amount"] is None:
            # The REST rows and frames of some years ago have only the size of the change and its direction.
            values["change_amount"] = reader.derive(to_signed, "absolute_change_amount", "change")
        if values["change_rate"] is None:
            values["change_rate"] = reader.derive(to_signed, "absolute_change_rate", "change")
        if values["trade_timestamp"] is None:
            values["trade_timestamp"] = reader.derive(day_and_time, "trade_date", "trade_time")
        return TickerData(**values, source=source, received_at=received_at)

    def unify_trade_data(
        self,
        raw: Mapping[str, Any],
        source: DataSource,
        received_at: datetime | None = None,
        *,
        place: str = "",
        tell: Tell = tell_nobody,
    ) -> TradeData:
        """One trade. MalformedDataError where market, price, volume or time cannot be read."""
        reader = Reader("trade", raw, spelling_of(raw, source), place, tell)
        values = reader.model_fields()
        # On the stream `change_price` has no sign, which its direction supplies; in REST the same name has one.
        if source is not DataSource.REST:
            values["change_amount"] = reader.derive(to_signed, "absolute_change_amount", "change")
        if values["timestamp"] is None:
            values["timestamp"] = reader.derive(day_and_time, "trade_date", "trade_time")
        if values["timestamp"] is None:
            raise reader.complaint("timestamp", "is missing or unreadable, and so are date and time")
        return TradeData(**values, source=source, received_at=received_at)

    def unify_orderbook_data(
        self,
        raw: Mapping[str, Any],
        source: DataSource,
        received_at: datetime | None = None,
        *,
        place: str = "",
        tell: Tell = tell_nobody,
    ) -> OrderbookData:
        """One order book, without the levels of price 0 that Upbit pads with. MalformedDataError where market, time or
        the levels cannot be read."""
        spelling = spelling_of(raw, source)
        values = Reader("orderbook", raw, spelling, place, tell).model_fields()
        # A book that does not name its grouping is not grouped; of the topics only that one is its own.
        values["level"] = values["level"] or ZERO
        asks, bids = _sides(raw.get(UNITS_KEY[spelling]), spelling, place)
        return OrderbookData(**values, asks=asks, bids=bids, source=source, received_at=received_at)

    @overload
    def unify_candle_data(
        self,
        raw: Mapping[str, Any],
        source: DataSource,
        received_at: datetime | None = None,
        *,
        timeframe: str | None = None,
        place: str = "",
        tell: Tell = tell_nobody,
    ) -> CandleData: ...

    @overload
    def unify_candle_data(
        self,
        raw: Sequence[Mapping[str, Any]],
        source: DataSource,
        received_at: datetime | None = None,
        *,
        timeframe: str | None = None,
        place: str = "",
        tell: Tell = tell_nobody,
    ) -> list[CandleData]: ...

    def unify_candle_data(
        self,
        raw: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        source: DataSource,
        received_at: datetime | None = None,
        *,
        timeframe: str | None = None,
        place: str = "",
        tell: Tell = tell_nobody,
    ) -> CandleData | list[CandleData]:
        """One candle, or the candles of a list in its order.

        Give `timeframe` where you know it. Otherwise it is told from the message: streams carry it, minutes and days
        show it, weeks, months and years are judged by the first day of the period and the last trade in it.
        """
        if not isinstance(raw, list | tuple):
            return _candle(raw, source, received_at, timeframe, place, tell)
        return [
            _candle(row, source, received_at, timeframe, f"{place}[{index}].", tell) for index, row in enumerate(raw)
        ]

    def unify_market_data(
        self,
        raw: Mapping[str, Any],
        source: DataSource,
        received_at: datetime | None = None,
        *,
        place: str = "",
        tell: Tell = tell_nobody,
    ) -> MarketInfo:
        """One row of the market list, of Korea or of a region. MalformedDataError where the market cannot be read."""
        values = Reader("market", raw, Spelling.REST, place, tell).model_fields()
        if values["warning"] is None:
            values["warning"] = _REGIONAL_WARNINGS.get(values["market_warning"])
        return MarketInfo(**values, source=source, received_at=received_at)

    def unify_instrument_data(
        self,
        raw: Mapping[str, Any],
        source: DataSource,
        received_at: datetime | None = None,
        *,
        place: str = "",
        tell: Tell = tell_nobody,
    ) -> Instrument:
        """The order book policy of one market (REST only)."""
        values = Reader("instrument", raw, Spelling.REST, place, tell).model_fields()
        return Instrument(**values, source=source, received_at=received_at)


def _is_null(raw: Mapping[str, Any], key: str) -> bool:
    return key in raw and raw[key] is None


def _candle(
    raw: Any, source: DataSource, received_at: datetime | None, timeframe: str | None, place: str, tell: Tell
) -> CandleData:
    # A stream tells only of candles that still form; REST cannot know, so who asked for it has to decide.
    is_stream = source is not DataSource.REST
    spelling = spelling_of(raw, source)
    values = Reader("candle", raw, spelling, place, tell).model_fields()
    frame = (
        timeframe_of(timeframe).word
        if timeframe
        else (_stream_timeframe(raw) if is_stream else _rest_timeframe(raw, values))
    )
    return CandleData(**values, timeframe=frame, source=source, received_at=received_at, is_closed=not is_stream)


def _sides(
    units: object, spelling: Spelling, place: str
) -> tuple[tuple[OrderbookUnit, ...], tuple[OrderbookUnit, ...]]:
    """Asks and bids, best first. Upbit pads the shorter side with levels of price 0, which are no levels."""
    key = place + UNITS_KEY[spelling]
    if not isinstance(units, list | tuple):
        problem = "is missing" if units is None else "is not a list"
        raise MalformedDataError(f"orderbook: {key} {problem}", field=key)
    levels = [
        Reader("orderbook_unit", unit, spelling, f"{key}[{index}].").model_fields() for index, unit in enumerate(units)
    ]
    asks = tuple(OrderbookUnit(unit["ask_price"], unit["ask_size"]) for unit in levels if unit["ask_price"])
    bids = tuple(OrderbookUnit(unit["bid_price"], unit["bid_size"]) for unit in levels if unit["bid_price"])
    return asks, bids


def _stream_timeframe(raw: Mapping[str, Any]) -> str:
    kind = raw.get("type", raw.get("ty"))
    if isinstance(kind, str) and kind.startswith("candle."):
        try:
            return timeframe_of(kind).word
        except UnknownTimeframeError:
            pass
    raise MalformedDataError(f"candle: type {shown(kind)} is no candle stream", field="type")


def _rest_timeframe(raw: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    unit = raw.get("unit")
    if unit is not None:
        try:
            return timeframe_of(f"minutes/{whole(unit)}").word
        except (UnknownTimeframeError, ValueError):
            raise MalformedDataError(f"candle: unit {shown(unit)} is no minute unit", field="unit") from None
    if values["first_day_of_period"] is not None:
        return _long_timeframe(values["timestamp"], values["last_trade_at"])
    # Seconds and days name no unit; only days compare with the day before.
    is_day = not raw.keys().isdisjoint(("prev_closing_price", "change_price", "change_rate"))
    return "1d" if is_day else "1s"


def _long_timeframe(start: datetime, last_trade_at: datetime | None) -> str:
    lasted = timedelta(0) if last_trade_at is None else last_trade_at - start
    # By the last trade in it, which in a quiet market says too little: hence the argument `timeframe`.
    if lasted > timedelta(days=31):
        return "1y"
    if lasted > timedelta(days=7) or start.day == 1:
        return "1M"
    return "1w"
