"""What REST says: the rows of every endpoint as text."""

from __future__ import annotations

import json
from functools import lru_cache

from upbit_backbone.simulator.engine.book import BookView
from upbit_backbone.simulator.engine.history import Candle, Trade
from upbit_backbone.simulator.engine.listing import Listing
from upbit_backbone.simulator.engine.market import Market, TickerState, day_label
from upbit_backbone.simulator.payloads import moments
from upbit_backbone.simulator.payloads.spelling import decimal, padded, plain, rate, turnover, turnover_padded
from upbit_backbone.simulator.payloads.stream_payloads import change_word

CAUTIONS = ("PRICE_FLUCTUATIONS", "TRADING_VOLUME_SOARING", "DEPOSIT_AMOUNT_SOARING", "GLOBAL_PRICE_DIFFERENCES",
             "CONCENTRATION_OF_SMALL_ACCOUNTS")  # fmt: skip


def error(name: int | str, message: str) -> str:
    return json.dumps({"error": {"name": name, "message": message}}, separators=(",", ":"), ensure_ascii=False)


def market(listing: Listing, details: bool) -> str:
    return _market_row(
        listing.code, listing.korean_name, listing.english_name, listing.warning, listing.cautions, details
    )


@lru_cache(maxsize=4096)  # 855 rows are asked for by each client that begins, and hardly ever change
def _market_row(code: str, korean_name: str, english_name: str, warning: bool, cautions: int, details: bool) -> str:
    row: dict[str, object] = {"market": code, "korean_name": korean_name, "english_name": english_name}
    if details:
        flags = {name: bool(cautions & 1 << bit) for bit, name in enumerate(CAUTIONS)}
        row["market_event"] = {"warning": warning, "caution": flags}
    return json.dumps(row, separators=(",", ":"), ensure_ascii=False)


def candle(code: str, one: Candle, extra: str = "") -> str:
    """A candle of any unit; `extra` is text that begins with a comma."""
    return (
        f'{{"market":"{code}","candle_date_time_utc":"{moments.iso(one.start_ms)}",'
        f'"candle_date_time_kst":"{moments.iso(one.start_ms + moments.KST_MS)}","opening_price":{padded(one.open)},'
        f'"high_price":{padded(one.high)},"low_price":{padded(one.low)},"trade_price":{padded(one.close)},'
        f'"timestamp":{one.last_ms},"candle_acc_trade_price":{turnover_padded(one.turnover)},'
        f'"candle_acc_trade_volume":{padded(one.volume)}{extra}}}'
    )


def day_extra(one: Candle, base: int, converted: str | None) -> str:
    """What only daily candles have; `converted` is the value of `converted_trade_price` if that was asked for."""
    change = one.close - base
    text = f',"prev_closing_price":{padded(base)},"change_price":{padded(change)},"change_rate":{rate(change, base)}'
    return text if converted is None else f'{text},"converted_trade_price":{converted}'


def trade(code: str, one: Trade, base: int) -> str:
    return (
        f'{{"market":"{code}","trade_date_utc":"{moments.date(one.ms)}","trade_time_utc":"{moments.time(one.ms)}",'
        f'"timestamp":{one.ms},"trade_price":{padded(one.price)},"trade_volume":{padded(one.volume)},'
        f'"prev_closing_price":{padded(base)},"change_price":{padded(one.price - base)},'
        f'"ask_bid":"{"BID" if one.is_bid else "ASK"}","sequential_id":{one.id}}}'
    )


def ticker(market: Market, state: TickerState) -> str:
    last, base = state.last, state.prev_close
    change, kst = last.price - base, last.ms + moments.KST_MS
    signed = rate(change, base)
    return (
        f'{{"market":"{market.code}","trade_date":"{moments.compact_date(last.ms)}",'
        f'"trade_time":"{moments.compact_time(last.ms)}","trade_date_kst":"{moments.compact_date(kst)}",'
        f'"trade_time_kst":"{moments.compact_time(kst)}","trade_timestamp":{last.ms},'
        f'"opening_price":{decimal(state.open)},"high_price":{decimal(state.high)},"low_price":{decimal(state.low)},'
        f'"trade_price":{decimal(last.price)},"prev_closing_price":{decimal(base)},'
        f'"change":{change_word(last.price, base)},'
        f'"change_price":{decimal(abs(change))},"change_rate":{signed.lstrip("-")},"signed_change_price":{decimal(change)},'
        f'"signed_change_rate":{signed},"trade_volume":{decimal(last.volume)},'
        f'"acc_trade_price":{turnover(state.turnover)},"acc_trade_price_24h":{turnover(state.turnover_24h)},'
        f'"acc_trade_volume":{decimal(state.volume)},"acc_trade_volume_24h":{decimal(state.volume_24h)},'
        f'"highest_52_week_price":{decimal(state.year[0])},"highest_52_week_date":"{day_label(state.year[1])}",'
        f'"lowest_52_week_price":{decimal(state.year[2])},"lowest_52_week_date":"{day_label(state.year[3])}",'
        f'"timestamp":{state.ms}}}'
    )


def orderbook(code: str, view: BookView, depth: int) -> str:
    units = ",".join(
        f'{{"bid_price":{plain(bid)},"bid_size":{plain(bid_size)},"ask_price":{plain(ask)},"ask_size":{plain(ask_size)}}}'
        for (ask, ask_size), (bid, bid_size) in zip(view.asks[:depth], view.bids[:depth], strict=True)
    )
    return (
        f'{{"market":"{code}","timestamp":{view.ms},"total_ask_size":{plain(view.total_ask)},'
        f'"total_bid_size":{plain(view.total_bid)},"orderbook_units":[{units}],"level":{plain(view.level)}}}'
    )


def instrument(market: Market) -> str:
    book = market.book
    levels = ",".join(f'"{plain(level)}"' for level in market.grid.levels(book.best_bid))
    return (
        f'{{"market":"{market.code}","quote_currency":"{market.grid.quote}",'
        f'"tick_size":"{plain(market.grid.tick(book.best_bid))}","supported_levels":[{levels}]}}'
    )


def supported_levels(market: Market) -> str:
    levels = ",".join(plain(level) for level in market.grid.levels(market.book.best_bid))
    return f'{{"market":"{market.code}","supported_levels":[{levels}]}}'
