"""Shared circuits: which circuit breakers of other processes are open, by way of a Redis server.

A note that ends by itself, and not pybreaker's storage there: that has the time from the clock of each machine, asks
Redis several times a call, and what a process that died had opened stays open. And a note opens nobody's breaker by
itself: a machine whose own line is cut would stop all others. Who has a failure of his own while there is one need not
have four more.
"""

from __future__ import annotations

from typing import Any, Final

from .._concurrency import Clock, get_logger
from ..errors import InvalidRequestError, UpbitBackboneError, one_line
from ..wire.redis_server import RedisServer
from ..wire.relay_keys import SCHEMA, Keys
from .scripts import BEGIN, refused

log = get_logger("upbit_backbone.upstream")

TIMEOUT_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 3.0  # a server that failed is asked again after this

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
        self._server = RedisServer(url, timeout=TIMEOUT_SECONDS, name="upbit-backbone", explain=self._explained)
        self._place = egress, host
        self._now = clock.monotonic
        self._retry_at = float("-inf")
        self._is_told = False

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
        if self._now() < self._retry_at:
            return None
        key = self._keys.limits(*self._place, "breaker", name.replace(" ", "-"))
        try:
            return self._server.run(script, [key], [SCHEMA, *arguments, self._keys.schema])
        except UpbitBackboneError as error:
            self._retry_at = max(self._retry_at, self._now() + RETRY_SECONDS)  # closed, it stays so
            if isinstance(error, InvalidRequestError) and not self._is_told:
                self._is_told = True
                log.warning("breakers are not shared with other processes", extra={"why": one_line(error)})
            log.debug("breakers: %s", one_line(error))
            return None

    def _explained(self, text: str) -> Exception | None:
        return refused(self._server.place, text, self._keys.limits(*self._place, "breaker", "*"))

    def close(self) -> None:
        """Let go of the connections; from now on each breaker is alone."""
        self._retry_at = float("inf")
        self._server.close()

    def __repr__(self) -> str:
        return f"<SharedCircuits {self._server.place} {' '.join(self._place)}>"
