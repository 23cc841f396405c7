"""Shared circuits: which circuit breakers of other processes are open, by way of a Redis server.

A note that ends by itself, and not pybreaker's storage there: that has the time from the clock of each machine, asks
Redis several times a call, and what a process that died had opened stays open. And a note opens nobody's breaker by
itself: a machine whose own line is cut would stop all others. Who has a failure of his own while there is one need not
have four more.
"""

from __future__ import annotations

from typing import Any, Final

from .._concurrency import Clock
from ..wire.relay_keys import Keys
from .scripts import BEGIN, refused
from .shared_redis import SharedRedis

# KEYS: note. ARGV: schema, …, key of the schema.
_BEGIN: Final = (
    BEGIN
    + """
local note = redis.call('GET', KEYS[1])
if note and not (note == 'UPBITBR1' and redis.call('PTTL', KEYS[1]) > 0) then return foreign(KEYS[1], note) end
"""
)
_LEFT: Final = _BEGIN + "return note and redis.call('PTTL', KEYS[1]) or 0"
# ARGV[2]: milliseconds.
_OPENED: Final = (
    _BEGIN + "redis.call('SET', KEYS[1], 'UPBITBR1', 'PX', text(math.max(ARGV[2], redis.call('PTTL', KEYS[1]))))"
)
_CLOSED: Final = _BEGIN + "redis.call('DEL', KEYS[1])"


class SharedCircuits:
    """The notes of one host and egress, under `prefix` at the server at `url`. Usable from any thread; raises
    InvalidRequestError where the URL or the prefix is none, and nothing else of ours."""

    def __init__(self, url: str, prefix: str, egress: str, host: str, *, clock: Clock) -> None:
        self._keys = Keys(prefix)
        self._redis = SharedRedis(url, self._keys, self._explained, what="breakers", clock=clock)
        self._place = egress, host

    def open_for(self, name: str) -> float:
        """Seconds for which some other process keeps the breaker of that name open; 0.0 if none does."""
        return (self._run(_LEFT, name) or 0) / 1000

    def opened(self, name: str, seconds: float) -> None:
        """The one here is open, and asks nothing for so long."""
        self._run(_OPENED, name, round(seconds * 1000))

    def closed(self, name: str) -> None:
        """The one here has found that it works again."""
        self._run(_CLOSED, name)

    def _run(self, script: str, name: str, *arguments: Any) -> Any | None:
        key = self._keys.limits(*self._place, "breaker", name.replace(" ", "-"))
        return self._redis.run_if_there(script, [key], arguments)

    def _explained(self, text: str) -> Exception | None:
        return refused(self._redis.place, text, self._keys.limits(*self._place, "breaker", "*"))

    def close(self) -> None:
        """Let go of the connections; from now on each breaker is alone."""
        self._redis.close()

    def __repr__(self) -> str:
        return f"<SharedCircuits {self._redis!r} {' '.join(self._place)}>"
