"""From the market to the sockets: snapshots for new subscriptions, frames for what happens."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace

from upbit_backbone.simulator.engine.history import DAY_MS, Candle, Trade
from upbit_backbone.simulator.engine.market import Market
from upbit_backbone.simulator.payloads import stream_payloads
from upbit_backbone.simulator.payloads.moments import without_kst
from upbit_backbone.simulator.serving.context import Context
from upbit_backbone.simulator.serving.session import Session
from upbit_backbone.simulator.serving.stream_requests import CANDLE_MS, Subscription

Interest = tuple[Session, int, int]
"""A session with the depth and the level it wants (both only matter for books)."""
Render = Callable[[stream_payloads.Style], str]
SNAPSHOTS_AT_ONCE = 50
BOOK_GRID_MS = 100


class Hub:
    """Knows who wants what. All frames of market data leave through here."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.sessions: dict[int, Session] = {}
        self._interest: dict[tuple[str, str], dict[tuple[int, int, int], Interest]] = {}
        self._books: set[Market] = set()
        self._candles: set[tuple[str, str, int]] = set()
        self._evaluated_second = context.clock.now_ms() // 1000
        self._shuffled: list[tuple[Market, Trade]] = []
        self._shuffle_until = 0
        self._rng = random.Random(f"{context.options.seed}/hub")

    def interest(self, kind: str, code: str) -> list[Interest]:
        return list(self._interest.get((kind, code), {}).values())

    # -- who wants what ------------------------------------------------------------------------------------------

    def enter(self, session: Session) -> None:
        self.sessions[session.id] = session

    def leave(self, session: Session) -> None:
        self.sessions.pop(session.id, None)
        self._forget(session)

    def subscribe(self, session: Session) -> None:
        """What a session subscribes to replaces what it had; snapshots follow in the order of the request."""
        self._forget(session)
        self._context.start(self._introduce(session, session.subscriptions))

    def _forget(self, session: Session) -> None:
        for key, interested in list(self._interest.items()):
            for one in [one for one in interested if one[0] == session.id]:
                del interested[one]
            if not interested:
                del self._interest[key]

    async def _introduce(self, session: Session, subscriptions: tuple[Subscription, ...]) -> None:
        """Snapshot, then interest, code by code, so that no code's realtime frame precedes its snapshot."""
        if self._context.options.snapshot_delay:
            await asyncio.sleep(self._context.options.snapshot_delay)
        done = 0
        for wanted in subscriptions:
            for code, depth in zip(wanted.codes, wanted.depths, strict=True):
                # Replaced while it was being introduced: the rest of these snapshots is nobody's any more.
                if session.subscriptions is not subscriptions or not session.connection.is_open:
                    return
                self._introduce_one(session, wanted, code, depth)
                done += 1
                # Other connections go on meanwhile; the snapshots of 855 markets would hold the loop.
                if done % SNAPSHOTS_AT_ONCE == 0:
                    await asyncio.sleep(0)
        session.flush()

    def _introduce_one(self, session: Session, wanted: Subscription, code: str, depth: int) -> None:
        market = self._context.exchange.markets.get(code)
        if market is None:
            return
        wants_snapshot = wanted.only_snapshot or not wanted.only_realtime
        if wants_snapshot and not self._context.faults.is_muted(wanted.type, code):
            text = self._snapshot(market, wanted, depth, stream_payloads.style_of(session.format))
            if text is not None:
                session.send_item(text, wanted.type)
        if not wanted.only_snapshot:
            interested = self._interest.setdefault((wanted.type, code), {})
            interested[session.id, depth, wanted.level] = (session, depth, wanted.level)

    def _snapshot(self, market: Market, wanted: Subscription, depth: int, style: stream_payloads.Style) -> str | None:
        label = self._context.options.snapshot_label
        if wanted.type == "ticker":
            return self._ticker_text(market, style, label)
        if wanted.type == "trade":
            return self._trade_text(market, market.last_trade(), style, label)
        if wanted.type == "orderbook":
            return self._book_text(market, depth, wanted.level, style, label)
        for candle in market.candles_back(CANDLE_MS[wanted.type], self._context.clock.now_ms() + 1):
            return self._candle_text(wanted.type, market, candle, style, label)
        return None

    # -- what happens --------------------------------------------------------------------------------------------

    def happened(self, trades: list[tuple[Market, Trade]], moved: set[Market]) -> None:
        """Publishes trades and tickers now, books on their 100 ms grid, candles once a second."""
        for market, trade in trades:
            self._note_candles(market, trade)
        self._publish_trades(trades)
        # One ticker for each market, however many trades a step has brought.
        for market in dict.fromkeys(market for market, _ in trades):
            self._publish_ticker(market)
        self._books |= moved
        self.tick()

    def tick(self) -> None:
        """What is due because time has passed."""
        now = self._context.clock.now_ms()
        if self._shuffled and now >= self._shuffle_until:
            self._release_shuffled()
        if now // 1000 != self._evaluated_second:
            self._evaluated_second = now // 1000
            self._publish_candles()
        for market in [one for one in self._books if self._book_slot(one, now) > one.book.shown_ms]:
            self._show_book(market, self._book_slot(market, now))
        for session in self.sessions.values():
            session.flush()

    def happened_by_hand(self, trades: list[tuple[Market, Trade]], moved: Market) -> None:
        """Like `happened`, but the book does not wait for its grid."""
        self.happened(trades, set())
        self._show_book(moved, self._context.clock.now_ms())

    def publish_again(self, code: str, count: int) -> int:
        """Sends the last `count` trades of a pair once more, with the same ids."""
        market = self._context.exchange.markets[code]
        again = list(market.live)[-count:]
        for trade in again:
            self._publish_trade(market, trade)
        return len(again)

    def repeat_candle(self, code: str, kind: str, periods_ago: int) -> None:
        """Sends a candle once more; nothing happens if nobody traded in that period."""
        market, period = self._context.exchange.markets[code], CANDLE_MS[kind]
        now = self._context.clock.now_ms()
        candle = market.candle(period, now - now % period - periods_ago * period)
        if candle is not None:
            self._publish_candle(market, kind, candle)

    def _publish_trades(self, trades: list[tuple[Market, Trade]]) -> None:
        faults = self._context.faults
        if faults.duplicate_trades:
            trades = [one for one in trades for _ in range(2)]
        if faults.shuffle_seconds and trades:
            if not self._shuffled:
                self._shuffle_until = self._context.clock.now_ms() + int(faults.shuffle_seconds * 1000)
            self._shuffled += trades
            return
        for market, trade in trades:
            self._publish_trade(market, trade)

    def _release_shuffled(self) -> None:
        trades, self._shuffled = self._shuffled, []
        self._rng.shuffle(trades)
        for market, trade in trades:
            self._publish_trade(market, trade)

    def _publish_ticker(self, market: Market) -> None:
        self._publish(market, "ticker", lambda style: self._ticker_text(market, style, "REALTIME"))

    def _publish_candle(self, market: Market, kind: str, candle: Candle) -> None:
        self._publish(market, kind, lambda style: self._candle_text(kind, market, candle, style, "REALTIME"))

    def _publish_trade(self, market: Market, trade: Trade) -> None:
        self._publish(market, "trade", lambda style: self._trade_text(market, trade, style, "REALTIME"))

    def _publish(self, market: Market, kind: str, render: Render) -> None:
        interested = self.interest(kind, market.code)
        if not interested or self._context.faults.is_muted(kind, market.code):
            return
        # Rendered once for each format, however many are subscribed: this is most of what the simulator spends.
        texts: dict[bool, str] = {}
        for session, _, _ in interested:
            style = stream_payloads.style_of(session.format)
            text = texts.get(style.simple) or texts.setdefault(style.simple, render(style))
            if not session.is_ending:
                session.send_item(text, kind)

    def _book_slot(self, market: Market, ms: int) -> int:
        """Books are published on a 100 ms grid; each pair has its own phase."""
        # In phase, all 855 books would leave in the same millisecond.
        return ms - (ms - hash_of(market.code)) % BOOK_GRID_MS

    def _show_book(self, market: Market, ms: int) -> None:
        self._books.discard(market)
        market.book.show(ms)
        self._publish_book(market)

    def _publish_book(self, market: Market) -> None:
        interested = self.interest("orderbook", market.code)
        if not interested or self._context.faults.is_muted("orderbook", market.code):
            return
        texts: dict[tuple[bool, int, int], str | None] = {}
        for session, depth, level in interested:
            style = stream_payloads.style_of(session.format)
            key = (style.simple, depth, level)
            if key not in texts:
                texts[key] = self._book_text(market, depth, level, style, "REALTIME")
            text = texts[key]
            if text is not None and not session.is_ending:
                session.send_item(text, "orderbook")

    def _note_candles(self, market: Market, trade: Trade) -> None:
        for kind, period in CANDLE_MS.items():
            if (kind, market.code) in self._interest:
                self._candles.add((kind, market.code, trade.ms - trade.ms % period))

    def _publish_candles(self) -> None:
        changed, self._candles = sorted(self._candles), set()
        for kind, code, start in changed:
            market = self._context.exchange.markets.get(code)
            candle = market.candle(CANDLE_MS[kind], start) if market is not None else None
            if market is not None and candle is not None:
                self._publish_candle(market, kind, candle)

    # -- text ----------------------------------------------------------------------------------------------------

    def _ticker_text(self, market: Market, style: stream_payloads.Style, stream_type: str) -> str:
        now, stale = self._context.clock.now_ms(), self._context.faults.stale_ms
        state = market.ticker(now)
        if stale:
            state.ms -= stale
            state.last = state.last._replace(ms=state.last.ms - stale)
        return stream_payloads.ticker(market, state, style, stream_type, self._context.options.deprecated_ticker_fields,
                                      self._context.delisting_dates.get(market.code),
                                      market.code in self._context.suspended)  # fmt: skip

    def _trade_text(self, market: Market, trade: Trade, style: stream_payloads.Style, stream_type: str) -> str:
        now, stale = self._context.clock.now_ms(), self._context.faults.stale_ms
        day = trade.ms // DAY_MS
        base = market.ticker(now).prev_close if day == now // DAY_MS else market.prev_close(day)
        shifted = trade._replace(ms=trade.ms - stale)
        return stream_payloads.trade(market, shifted, base, style, stream_type, self._context.options.short_trade_time,
                                     now - stale)  # fmt: skip

    def _candle_text(
        self, kind: str, market: Market, candle: Candle, style: stream_payloads.Style, stream_type: str
    ) -> str:
        text = stream_payloads.candle(kind, market.code, candle, style, stream_type)
        return text if self._context.options.kst_fields else without_kst(text)

    def _book_text(
        self, market: Market, depth: int, level: int, style: stream_payloads.Style, stream_type: str
    ) -> str | None:
        view = market.book.view(level)
        if view is None:
            return None
        view = replace(view, ms=view.ms - self._context.faults.stale_ms)
        return stream_payloads.orderbook(market.code, view, depth, style, stream_type)


def hash_of(code: str) -> int:
    """A number that depends on the code only; Python's own hash differs from run to run."""
    return sum(ord(letter) * 31**place for place, letter in enumerate(code))
