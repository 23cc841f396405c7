"""Upstream: sessions are given a relay's connection, or, while there is none to be had, one to Upbit itself.

The way down is taken at once where Redis cannot be reached, and after a moment where it can and no relay leads: another
one takes over within three seconds. The way back is looked for once a second, on a thread that there is only then. In
both directions the session reconnects as after any break, so nothing is lost: what came meanwhile is read from the
relay's streams, or asked of REST, and what comes twice is known by its id.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from .._concurrency import Clock, Deadline, Flag, LoopThread, Waitable, get_logger
from ..backfill.pages import TradesPage
from ..errors import ClosedError, NetworkError, UpbitBackboneError, one_line
from ..models.events import Event, UpstreamEvent
from ..models.request import Topic
from ..sessions.ports import Connection, Dial
from .relay_connection import NoRelayError, RelayTransport
from .sightings import Sightings

log = get_logger("upbit_backbone.upstream")

FAIL_OVER_SECONDS: Final = 3.0  # that another relay may take to lead
LOOK_SECONDS: Final = 1.0
OPEN_SECONDS: Final = 2.5


class Upstream:
    """Opens connections: a `Dial` for sessions. Usable from any thread.

    `reconnect(reason)` has all sessions connect anew; `emit` is told of each change between the two ways.
    """

    def __init__(
        self,
        relay: RelayTransport,
        direct: Dial,
        *,
        reconnect: Callable[[str], object],
        emit: Callable[[Event], object],
        clock: Clock,
    ) -> None:
        self._relay = relay
        self._direct = direct
        self._reconnect = reconnect
        self._emit = emit
        self._clock = clock
        self._lock = threading.Lock()  # guards the three below; nothing is opened or told under it
        self._trouble: str | None = None  # why sessions go to Upbit themselves
        self._since = clock.wall()
        self._lost_at: float | None = None  # when a relay was first missed that had been there
        self._was_there = False
        self._closing = Flag()
        self._watch = LoopThread(self._look, "upbit-upstream", is_over=self._closing.is_set)

    @property
    def is_direct(self) -> bool:
        """Whether sessions go to Upbit themselves."""
        return self._trouble is not None

    @property
    def place(self) -> str:
        """Where streams come from at the moment."""
        return "Upbit" if self.is_direct else self._relay.place

    @property
    def trouble(self) -> str | None:
        """Why they do not come from where they should, in words; None if they do."""
        trouble = self._trouble
        if trouble is None:
            return None
        return f"upstream: connected to Upbit directly since {self._since:%H:%M:%S}Z, because {trouble}"

    def open(self, deadline: Deadline, *, stop: Waitable) -> Connection:
        """A connection to the relay, or to Upbit while there is none. Raises what either raises."""
        if self.is_direct:
            return self._direct(deadline, stop=stop)
        try:
            connection = self._relay.open(deadline.sooner(OPEN_SECONDS), stop=stop)
        except ClosedError:
            raise
        except UpbitBackboneError as error:
            # Raised, although the way is known now: the handshake at Upbit needs a permission of its own, which the
            # session asks for before its next attempt.
            self._missed(error)
            # A password that Redis refuses is not the end either: another attempt is worth it at once.
            raise NetworkError(one_line(error)) from error
        with self._lock:
            self._was_there, self._lost_at = True, None
        return connection

    def past_trades(self, rest: TradesPage) -> TradesPage:
        """Pages of past trades: what the relay keeps, and behind that, or while there is none, what `rest` gives."""
        return self._relay.history(rest, lambda: self.is_direct).page

    def seen(self, topics: frozenset[Topic]) -> Sightings:
        """When `topics` last moved, as far as the relay that leads has seen it by its own line; of none while there is
        no relay. Raises as Redis fails; waits for a second at most."""
        found = {} if self.is_direct else self._relay.seen()
        return {topic: found[topic] for topic in topics if topic in found}

    def _missed(self, error: UpbitBackboneError) -> None:
        now = self._clock.monotonic()
        may_pass = isinstance(error, NoRelayError)
        with self._lock:
            if self._trouble is not None:
                return
            self._lost_at = now if self._lost_at is None else self._lost_at
            if may_pass and self._was_there and now - self._lost_at < FAIL_OVER_SECONDS:
                return
            self._trouble, self._since = one_line(error), self._clock.wall()
        self._tell(direct=True, reason=one_line(error))
        self._watch.ensure()

    def _look(self) -> None:
        if self._closing.wait(LOOK_SECONDS):
            return
        self._watch_once()

    def _watch_once(self) -> None:
        if not self.is_direct:
            return
        try:
            leader = self._relay.check()
        except UpbitBackboneError as error:
            log.debug("no relay yet: %s", one_line(error))
            return
        with self._lock:
            self._trouble = self._lost_at = None
        self._tell(direct=False, reason=f"the relay {one_line(leader)} leads")
        self._reconnect("the relay is there again")

    def _tell(self, *, direct: bool, reason: str) -> None:
        self._emit(UpstreamEvent(at=self._clock.wall(), upstream=self._relay.place, direct=direct, reason=reason))

    def close(self, deadline: Deadline) -> list[str]:
        """Look for no relay any more; the name of the thread if it would not end by `deadline`."""
        self._closing.set()
        return self._watch.join(deadline)

    def __repr__(self) -> str:
        return f"<Upstream {self._relay.place}{' direct' if self.is_direct else ''}>"
