"""Verbs that look and change nothing."""

from __future__ import annotations

import time
from typing import Any

from upbit_backbone.simulator.control.base import VerbsBase
from upbit_backbone.simulator.payloads.spelling import plain


class LookingVerbs(VerbsBase):
    """The market list, the wire log, sessions and counters."""

    def urls(self) -> dict[str, Any]:
        return self._server.urls()

    def markets(self) -> list[str]:
        return list(self._context.exchange.markets)

    def sessions(self) -> list[dict[str, Any]]:
        """The open WebSockets with their present subscriptions."""
        return [session.describe() for session in self._hub.sessions.values()]

    def wire_log(
        self,
        kind: str | None = None,
        since: int | None = None,
        where: dict[str, Any] | None = None,
        limit: int = 10_000,
    ) -> list[dict[str, Any]]:
        """The newest entries of the wire log, oldest first."""
        return self._context.log.entries(kind, since, where, limit)

    def clear_wire_log(self) -> None:
        self._context.log.clear()

    def counters(self) -> dict[str, Any]:
        context = self._context
        return {
            **context.log.counters, "open_connections": len(self._server.connections),
            "sessions": len(self._hub.sessions),
            "rejected": dict(context.limits.rejected), "load_sent": self._server.load.sent,
            "load_skipped": self._server.load.skipped, "now_ms": context.clock.now_ms(), "monotonic": time.monotonic(),
        }  # fmt: skip

    def faults(self) -> dict[str, Any]:
        """The faults that are on."""
        return {**self._context.faults.describe(), "frozen": sorted(self._context.frozen)}

    def trades(self, symbol: str, since_ms: int = 0, until_ms: int | None = None) -> list[dict[str, Any]]:
        """All trades since the start that are still retained, in order; what a client should have seen."""
        return [
            {"sequential_id": one.id, "trade_timestamp": one.ms, "price": plain(one.price),
             "volume": plain(one.volume), "ask_bid": "BID" if one.is_bid else "ASK"}
            for one in self._context.exchange.markets[symbol].live
            if one.ms >= since_ms and (until_ms is None or one.ms < until_ms)
        ]  # fmt: skip
