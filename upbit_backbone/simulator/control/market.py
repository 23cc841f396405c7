"""Verbs that move the market, the clock and the switches."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

from upbit_backbone.simulator.control.base import PRICE_UNIT, VerbsBase
from upbit_backbone.simulator.payloads.rest_payloads import CAUTIONS
from upbit_backbone.simulator.payloads.spelling import plain

BURST_AT_ONCE = 200


class MarketVerbs(VerbsBase):
    """Trades, silence, delisting, time, and data that is stale, doubled or out of order."""

    def publish_trade(
        self,
        symbol: str,
        price: float | str | None = None,
        volume: float | str | None = None,
        ask_bid: str | None = None,
    ) -> dict[str, Any]:
        """A trade now, on REST and WebSocket; what is not given is chosen."""
        exchange = self._context.exchange
        is_bid = None if ask_bid is None else ask_bid == "BID"
        market, trade = exchange.publish(symbol, _units(price), _units(volume), is_bid)
        self._hub.happened_by_hand([(market, trade)], market)
        return {"sequential_id": trade.id, "trade_timestamp": trade.ms, "price": plain(trade.price),
                "volume": plain(trade.volume), "ask_bid": "BID" if trade.is_bid else "ASK"}  # fmt: skip

    async def burst(self, symbol: str, count: int) -> int:
        """So many trades of one pair as fast as the simulator can, many of them in the same millisecond."""
        exchange, hub = self._context.exchange, self._hub
        left = count
        while left > 0:
            made = [exchange.publish(symbol) for _ in range(min(left, BURST_AT_ONCE))]
            hub.happened_by_hand(made, exchange.markets[symbol])
            left -= len(made)
            await asyncio.sleep(0)  # connections and limits go on meanwhile
        return count

    def touch_book(self, symbol: str) -> None:
        """A few sizes of the book change; it is published like any other change."""
        market = self._context.exchange.markets[symbol]
        market.book.flicker(self._context.clock.now_ms())
        self._hub.happened_by_hand([], market)

    def pause(self, symbols: list[str] | None = None) -> None:
        """Nobody trades any more (in these pairs): legal silence."""
        if symbols is None:
            self._context.exchange.paused = True
        else:
            self._context.exchange.paused_codes |= set(symbols)

    def resume(self) -> None:
        self._context.exchange.paused = False
        self._context.exchange.paused_codes.clear()

    def set_rate(self, trades_per_second: float) -> None:
        self._context.exchange.trades_per_second = trades_per_second

    def load(self, messages_per_second: float, tick: float = 0.01, stamped_ids: bool = False) -> None:
        """Load mode: so many made-up frames a second to every session, in a burst every `tick` seconds; 0 ends it.

        With `stamped_ids`, a trade's sequential_id less 10**16 is the machine's monotonic clock in nanoseconds.
        """
        self._server.load.set_rate(messages_per_second, tick, stamped_ids)

    def list_market(self, symbol: str) -> None:
        """A new pair: in market/all, on REST and on the WebSocket."""
        self._context.exchange.list_market(symbol)

    def rename(self, symbol: str, korean_name: str | None = None, english_name: str | None = None) -> None:
        """Other names in market/all."""
        listing = self._context.exchange.markets[symbol].listing
        listing.korean_name = korean_name or listing.korean_name
        listing.english_name = english_name or listing.english_name

    def warn(self, symbol: str, warning: bool | None = None, cautions: list[str] | None = None) -> None:
        """The pair is under warning or not, and exactly these caution flags are up; what is null stays as it is."""
        listing = self._context.exchange.markets[symbol].listing
        if unknown := set(cautions or ()) - set(CAUTIONS):
            raise ValueError(f"{sorted(unknown)}: expected some of {', '.join(CAUTIONS)}")
        if warning is not None:
            listing.warning = warning
        if cautions is not None:
            listing.cautions = sum(1 << CAUTIONS.index(name) for name in set(cautions))

    def suspend(self, symbol: str, on: bool = True) -> None:
        """The WebSocket ticker says that trading is suspended."""
        (self._context.suspended.add if on else self._context.suspended.discard)(symbol)

    def delist(self, symbol: str) -> None:
        """The pair is gone: from market/all, REST (404) and WebSocket (silence)."""
        self._context.exchange.delist(symbol)

    def announce_delisting(self, symbol: str, date: str | None) -> None:
        """The WebSocket ticker carries this `delisting_date` (yyyy-MM-dd)."""
        if date is None:
            self._context.delisting_dates.pop(symbol, None)
        else:
            self._context.delisting_dates[symbol] = date

    def advance_clock(self, seconds: float) -> int:
        """Moves the simulator's time forward; limits, idle and UP timers keep to real time."""
        self._context.clock.advance(seconds)
        self._hub.tick()
        return self._context.clock.now_ms()

    def stale_timestamps(self, milliseconds: int) -> None:
        """Tickers, trades and books on the WebSocket carry times that are so much older; 0 ends it."""
        self._context.faults.stale_ms = milliseconds

    def duplicate_trades(self, on: bool = True) -> None:
        """Every trade frame is sent twice."""
        self._context.faults.duplicate_trades = on

    def replay_trades(self, symbol: str, count: int = 1) -> int:
        """Sends the last trades of a pair once more."""
        return self._hub.publish_again(symbol, count)

    def repeat_candle(self, symbol: str, type: str, periods_ago: int = 0) -> None:  # noqa: A002
        """Sends the candle of so many periods ago (as it is now) to whoever is subscribed to it."""
        self._hub.repeat_candle(symbol, type, periods_ago)

    def shuffle_trades(self, seconds: float = 2.0) -> None:
        """Trade frames are collected for so long and sent in random order; 0 ends it."""
        self._context.faults.shuffle_seconds = seconds

    def set_options(self, **changes: Any) -> None:
        """Changes switches while running; those that matter only at the start or for new connections act from then."""
        for name, value in changes.items():
            if not hasattr(self._context.options, name):
                raise ValueError(f"no option {name!r}")
            setattr(self._context.options, name, value)

    def stop(self) -> None:
        """Ends the simulator."""
        self._later(0.01, self._server.stop)


def _units(value: float | str | None) -> int | None:
    return None if value is None else int(Decimal(str(value)) * PRICE_UNIT)
