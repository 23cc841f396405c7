"""What the WebSocket says: one table of fields per type, two formats of keys, and numbers as each kind spells them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from upbit_backbone.simulator.engine.book import BookView
from upbit_backbone.simulator.engine.history import Candle, Trade
from upbit_backbone.simulator.engine.market import Market, TickerState, day_label
from upbit_backbone.simulator.payloads import moments, spelling

FORMATS = ("DEFAULT", "SIMPLE", "JSON_LIST", "SIMPLE_LIST")

_TICKER = """type:ty code:cd opening_price:op high_price:hp low_price:lp trade_price:tp prev_closing_price:pcp
acc_trade_price:atp change:c change_price:cp signed_change_price:scp change_rate:cr signed_change_rate:scr ask_bid:ab
trade_volume:tv acc_trade_volume:atv trade_date:tdt trade_time:ttm trade_timestamp:ttms acc_ask_volume:aav
acc_bid_volume:abv highest_52_week_price:h52wp highest_52_week_date:h52wdt lowest_52_week_price:l52wp
lowest_52_week_date:l52wdt market_state:ms is_trading_suspended:its delisting_date:dd market_warning:mw timestamp:tms
acc_trade_price_24h:atp24h acc_trade_volume_24h:atv24h stream_type:st"""
_TRADE = """type:ty code:cd timestamp:tms trade_date:td trade_time:ttm trade_timestamp:ttms trade_price:tp
trade_volume:tv ask_bid:ab prev_closing_price:pcp change:c change_price:cp sequential_id:sid best_ask_price:bap
best_ask_size:bas best_bid_price:bbp best_bid_size:bbs stream_type:st"""
_CANDLE = """type:ty code:cd candle_date_time_utc:cdttmu candle_date_time_kst:cdttmk opening_price:op high_price:hp
low_price:lp trade_price:tp candle_acc_trade_volume:catv candle_acc_trade_price:catp timestamp:tms stream_type:st"""
_DEPRECATED = ("is_trading_suspended", "market_warning")


@dataclass(slots=True, frozen=True)
class Style:
    """How one format spells keys, prices of books and sizes of books and trades; other numbers are alike in both."""

    simple: bool
    book_price: Callable[[int], str]
    size: Callable[[int], str]


DEFAULT = Style(False, spelling.double, spelling.padded)
SIMPLE = Style(True, spelling.plain, spelling.short)


def style_of(format_name: str) -> Style:
    return SIMPLE if format_name.startswith("SIMPLE") else DEFAULT


def is_list(format_name: str) -> bool:
    return format_name.endswith("_LIST")


def _template(table: str, simple: bool, without: tuple[str, ...] = ()) -> str:
    pairs = [pair.split(":") for pair in table.split()]
    return "{" + ",".join(f'"{short if simple else name}":%s' for name, short in pairs if name not in without) + "}"


_TEMPLATES = {
    (kind, simple): _template(table, simple)
    for kind, table in (("ticker", _TICKER), ("trade", _TRADE), ("candle", _CANDLE))
    for simple in (False, True)
} | {("ticker-new", simple): _template(_TICKER, simple, _DEPRECATED) for simple in (False, True)}


def change_word(price: int, base: int) -> str:
    return '"RISE"' if price > base else '"FALL"' if price < base else '"EVEN"'


def ticker(market: Market, state: TickerState, style: Style, stream_type: str, deprecated: bool, delisting: str | None,
           is_suspended: bool = False) -> str:  # fmt: skip
    """One ticker object."""
    last, base = state.last, state.prev_close
    change = last.price - base
    number, turnover = spelling.decimal, spelling.turnover
    signed_rate = spelling.rate(change, base)
    delisted = "null" if delisting is None else json.dumps(_date_object(delisting))
    state_word = '"DELISTED"' if delisting is not None and delisting <= moments.date(state.ms) else '"ACTIVE"'
    suspended = "true" if is_suspended else "false"
    warning = '"CAUTION"' if market.listing.warning else '"NONE"'
    values = (
        '"ticker"', f'"{market.code}"', number(state.open), number(state.high), number(state.low),
        number(last.price), number(base), turnover(state.turnover), change_word(last.price, base),
        number(abs(change)), number(change), signed_rate.lstrip("-"), signed_rate,
        '"BID"' if last.is_bid else '"ASK"', number(last.volume), number(state.volume),
        f'"{moments.compact_date(last.ms)}"', f'"{moments.compact_time(last.ms)}"', str(last.ms),
        number(state.ask_volume), number(state.bid_volume), number(state.year[0]),
        f'"{day_label(state.year[1])}"', number(state.year[2]), f'"{day_label(state.year[3])}"', state_word,
        *((suspended, delisted, warning) if deprecated else (delisted,)), str(state.ms),
        turnover(state.turnover_24h), number(state.volume_24h), f'"{stream_type}"',
    )  # fmt: skip
    return _TEMPLATES["ticker" if deprecated else "ticker-new", style.simple] % values


def trade(market: Market, one: Trade, base: int, style: Style, stream_type: str, short_time: bool, sent_ms: int) -> str:
    """One trade object."""
    book, number = market.book, spelling.padded
    clock = moments.time(one.ms)
    if short_time and clock.endswith(":00"):
        clock = clock[:-3]
    return _TEMPLATES["trade", style.simple] % (
        '"trade"', f'"{market.code}"', sent_ms, f'"{moments.date(one.ms)}"', f'"{clock}"', one.ms,
        number(one.price), style.size(one.volume), '"BID"' if one.is_bid else '"ASK"', number(base),
        change_word(one.price, base), number(abs(one.price - base)), one.id, spelling.plain(book.best_ask),
        style.size(book.best_ask_size), spelling.plain(book.best_bid), style.size(book.best_bid_size),
        f'"{stream_type}"',
    )  # fmt: skip


def candle(type_name: str, code: str, one: Candle, style: Style, stream_type: str) -> str:
    """One candle object; `type_name` is e.g. `candle.1m`."""
    number = spelling.padded
    return _TEMPLATES["candle", style.simple] % (
        f'"{type_name}"', f'"{code}"', f'"{moments.iso(one.start_ms)}"',
        f'"{moments.iso(one.start_ms + moments.KST_MS)}"', number(one.open), number(one.high),
        number(one.low), number(one.close), number(one.volume), spelling.turnover_padded(one.turnover),
        one.last_ms, f'"{stream_type}"',
    )  # fmt: skip


def orderbook(code: str, view: BookView, depth: int, style: Style, stream_type: str) -> str:
    """One complete book of `depth` levels a side; the totals always cover the whole book."""
    price, size = style.book_price, style.size
    unit = '{"ap":%s,"bp":%s,"as":%s,"bs":%s}' if style.simple else (
        '{"ask_price":%s,"bid_price":%s,"ask_size":%s,"bid_size":%s}')  # fmt: skip
    units = ",".join(
        unit % (price(ask), price(bid), size(ask_size), size(bid_size))
        for (ask, ask_size), (bid, bid_size) in zip(view.asks[:depth], view.bids[:depth], strict=True)
    )
    head = ('{"ty":"orderbook","cd":"%s","tms":%d,"tas":%s,"tbs":%s,"obu":[%s],"st":"%s","lv":%s}' if style.simple else
            '{"type":"orderbook","code":"%s","timestamp":%d,"total_ask_size":%s,"total_bid_size":%s,'
            '"orderbook_units":[%s],"stream_type":"%s","level":%s}')  # fmt: skip
    return head % (
        code,
        view.ms,
        size(view.total_ask),
        size(view.total_bid),
        units,
        stream_type,
        spelling.plain(view.level),
    )


def subscriptions(rows: list[tuple[str, list[str], str | None]], ticket: str, format_name: str) -> str:
    """The answer to LIST_SUBSCRIPTIONS; rows are (type, codes, level of a book)."""
    simple = style_of(format_name).simple
    names = ("mthd", "rslt", "ty", "cds", "lv", "tckt") if simple else (
        "method", "result", "type", "codes", "level", "ticket")  # fmt: skip
    result = [{names[2]: kind, names[3]: codes, **({} if level is None else {names[4]: json.loads(level)})}
              for kind, codes, level in rows]  # fmt: skip
    answer = {names[0]: "LIST_SUBSCRIPTIONS", names[1]: result, names[5]: ticket}
    text = json.dumps(answer, separators=(",", ":"), ensure_ascii=False)
    return f"[{text}]" if is_list(format_name) else text


def error(name: str, message: str) -> str:
    return json.dumps({"error": {"message": message, "name": name}}, separators=(",", ":"), ensure_ascii=False)


def _date_object(text: str) -> dict[str, int]:
    year, month, day = (int(part) for part in text.split("-"))
    return {"year": year, "month": month, "day": day}
