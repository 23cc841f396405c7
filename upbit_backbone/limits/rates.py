"""How much the backbones of a process allow themselves, and which of them are alive. No lock: the limiter has one."""

from __future__ import annotations

import weakref
from typing import Final, NamedTuple

from ..models.enums import RateGroup

REQUESTS_PER_SECOND: Final = 10.0  # docs: rate-limits, per REST group
CONNECTS_PER_SECOND: Final = 5.0  # docs: rate-limits, websocket-connect


class Rates(NamedTuple):
    """What one backbone allows itself per second: requests of each REST group, and WebSocket handshakes."""

    requests: float = REQUESTS_PER_SECOND
    connects: float = CONNECTS_PER_SECOND


class Limits:
    """Whoever shares one host's budget. The most careful decides: it is one and the same for all of them."""

    def __init__(self) -> None:
        # Weakly, so that a backbone nobody closed counts only as long as it lives.
        self._rates: weakref.WeakKeyDictionary[object, Rates] = weakref.WeakKeyDictionary()

    def enter(self, user: object, rates: Rates) -> None:
        self._rates[user] = rates

    def leave(self, user: object) -> None:
        self._rates.pop(user, None)

    def rate(self, group: RateGroup) -> float:
        """What all of them together may send to `group` in a second."""
        every = list(self._rates.values()) or [Rates()]
        is_connect = group is RateGroup.WEBSOCKET_CONNECT
        return min(rates.connects if is_connect else rates.requests for rates in every)

    def all(self) -> list[object]:
        return list(self._rates)

    def __len__(self) -> int:
        return len(self._rates)

    def __repr__(self) -> str:
        return f"<Limits {len(self)}>"
