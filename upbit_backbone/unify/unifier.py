"""The tolerant reader: one decoded message of any spelling becomes one model.

This is the whole meaning of the table, written plainly. The decoders in `typed` do the same from bytes, faster, for
messages of the usual shape; whatever they refuse comes here. Both give equal objects, and the tests hold them to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, overload

from ..errors import MalformedDataError, one_line
from ..models.enums import DataSource
from ..models.market import CandleData, MarketInfo, OrderbookData, OrderbookUnit, TickerData, TradeData
from .fields import (
    FIELD_MAPPING,
    MINUTE_TIMEFRAMES,
    STREAM_TIMEFRAMES,
    UNITS_KEY,
    Field,
    Spelling,
    Use,
)
from .values import day_and_time, to_signed

ZERO = Decimal(0)
_MODEL_USES = (Use.REQUIRED, Use.DERIVABLE, Use.OPTIONAL)
_ROWS: Mapping[str, Mapping[str, Field]] = {
    kind: {row.name: row for row in rows} for kind, rows in FIELD_MAPPING.items()
}


def spelling_of(raw: object, source: DataSource) -> Spelling:
    if source is DataSource.REST or not isinstance(raw, Mapping):
        return Spelling.REST
    is_simple = "type" not in raw and not raw.keys().isdisjoint(("ty", "cd", "mk"))
    return Spelling.SIMPLE if is_simple else Spelling.DEFAULT


class Reader:
    """Reads the fields of one message by the table. Every complaint names the field, as spelled on the wire.

    `place` is where the message stands in the payload, for the complaint: `[3].` or `orderbook_units[0].`.
    """

    def __init__(self, kind: str, raw: object, spelling: Spelling, place: str = "") -> None:
        if not isinstance(raw, Mapping):
            where = place.rstrip(".") or None
            raise MalformedDataError(f"{kind}: {where or 'the message'} is not an object", field=where)
        self._kind = kind
        self._raw = raw
        self._spelling = spelling
        self._place = place

    def model_fields(self) -> dict[str, Any]:
        """Every field that this channel sends, converted; None for those that are missing."""
        return {
            row.name: self.value(row.name)
            for row in FIELD_MAPPING[self._kind]
            if row.use in _MODEL_USES and row.spelled(self._spelling)
        }

    def value(self, name: str) -> Any:
        row = _ROWS[self._kind][name]
        for key in (row.spelled(self._spelling), *row.old):
            found = None if key is None else _look_up(self._raw, key)
            if found is not None:
                try:
                    return row.how.tolerant(found)
                except (ValueError, TypeError, ArithmeticError) as problem:
                    raise self.complaint(name, f"{_short(problem)}: {one_line(repr(found), 60)}") from None
        if row.use is Use.REQUIRED:
            raise self.complaint(name, "is missing")
        return None

    def derive(self, derivation: Callable[..., Any], *helpers: str) -> Any:
        """What `derivation` makes of the helper fields, or None while one of them is missing."""
        values = [self.value(helper) for helper in helpers]
        if None in values:
            return None
        try:
            return derivation(*values)
        except ValueError as problem:
            raise self.complaint(helpers[-1], _short(problem)) from None

    def complaint(self, name: str, problem: str) -> MalformedDataError:
        key = self._place + (_ROWS[self._kind][name].spelled(self._spelling) or name)
        return MalformedDataError(f"{self._kind}: {key} ({name}) {problem}", field=key)


def _look_up(raw: Mapping[str, Any], key: str) -> Any:
    outer, dot, inner = key.partition(".")
    if not dot:
        return raw.get(key)
    nested = raw.get(outer)
    return nested.get(inner) if isinstance(nested, Mapping) else None


def _short(problem: Exception) -> str:
    """The words of `values`, or a word for what the standard library said at length."""
    words = str(problem)
    return words if words.startswith("is ") else "is not valid"


class DataUnifier:
    """Decoded messages (numbers as Decimal or int) in Upbit's spellings become models.

    `source` says which channel the message came through and so which names to expect; DEFAULT and SIMPLE spellings
    of the WebSocket are told apart by themselves. A message that cannot be understood is a `MalformedDataError`
    naming the field; unknown fields are ignored. Stateless, safe from any thread.
    """

    def unify_ticker_data(
        self, raw: Mapping[str, Any], source: DataSource, received_at: datetime | None = None, *, place: str = ""
    ) -> TickerData:
        reader = Reader("ticker", raw, spelling_of(raw, source), place)
        values = reader.model_fields()
        if values["change_amount"] is None:
            values["change_amount"] = reader.derive(to_signed, "absolute_change_amount", "change")
        if values["change_rate"] is None:
            values["change_rate"] = reader.derive(to_signed, "absolute_change_rate", "change")
        if values["trade_timestamp"] is None:
            values["trade_timestamp"] = reader.derive(day_and_time, "trade_date", "trade_time")
        return TickerData(**values, source=source, received_at=received_at)

    def unify_trade_data(
        self, raw: Mapping[str, Any], source: DataSource, received_at: datetime | None = None, *, place: str = ""
    ) -> TradeData:
        reader = Reader("trade", raw, spelling_of(raw, source), place)
        values = reader.model_fields()
        if source is not DataSource.REST:
            values["change_amount"] = reader.derive(to_signed, "absolute_change_amount", "change")
        if values["timestamp"] is None:
            values["timestamp"] = reader.derive(day_and_time, "trade_date", "trade_time")
        if values["timestamp"] is None:
            raise reader.complaint("timestamp", "is missing")
        return TradeData(**values, source=source, received_at=received_at)

    def unify_orderbook_data(
        self, raw: Mapping[str, Any], source: DataSource, received_at: datetime | None = None, *, place: str = ""
    ) -> OrderbookData:
        spelling = spelling_of(raw, source)
        values = Reader("orderbook", raw, spelling, place).model_fields()
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
    ) -> list[CandleData]: ...

    def unify_candle_data(
        self,
        raw: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        source: DataSource,
        received_at: datetime | None = None,
        *,
        timeframe: str | None = None,
        place: str = "",
    ) -> CandleData | list[CandleData]:
        """One candle, or the candles of a list in its order.

        Give `timeframe` where you know it. Otherwise it is told from the message: streams carry it, minutes and days
        show it, weeks, months and years are judged by the first day of the period and the last trade in it.
        """
        if not isinstance(raw, list | tuple):
            return _candle(raw, source, received_at, timeframe, place)
        return [_candle(row, source, received_at, timeframe, f"{place}[{index}].") for index, row in enumerate(raw)]

    def unify_market_data(
        self, raw: Mapping[str, Any], source: DataSource, received_at: datetime | None = None, *, place: str = ""
    ) -> MarketInfo:
        values = Reader("market", raw, Spelling.REST, place).model_fields()
        return MarketInfo(**values, source=source, received_at=received_at)


def _candle(
    raw: Any, source: DataSource, received_at: datetime | None, timeframe: str | None, place: str
) -> CandleData:
    is_stream = source is not DataSource.REST
    spelling = spelling_of(raw, source)
    values = Reader("candle", raw, spelling, place).model_fields()
    frame = timeframe or (_stream_timeframe(raw) if is_stream else _rest_timeframe(raw, values))
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
    for data_type, frame in STREAM_TIMEFRAMES.items():
        if data_type.value == kind:
            return frame
    raise MalformedDataError(f"candle: type {one_line(repr(kind), 40)} is no candle stream", field="type")


def _rest_timeframe(raw: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    unit = raw.get("unit")
    if unit is not None:
        if isinstance(unit, int | Decimal) and unit in MINUTE_TIMEFRAMES:
            return MINUTE_TIMEFRAMES[int(unit)]
        raise MalformedDataError(f"candle: unit {one_line(repr(unit), 40)} is no minute unit", field="unit")
    if values["first_day_of_period"] is not None:
        return _long_timeframe(values["timestamp"], values["last_trade_at"])
    is_day = not raw.keys().isdisjoint(("prev_closing_price", "change_price", "change_rate"))
    return "1d" if is_day else "1s"


def _long_timeframe(start: datetime, last_trade_at: datetime | None) -> str:
    lasted = timedelta(0) if last_trade_at is None else last_trade_at - start
    if lasted > timedelta(days=31):
        return "1y"
    if lasted > timedelta(days=7) or start.day == 1:
        return "1M"
    return "1w"
