"""Lists of all tickers of a quote currency: what is asked at about the same time leaves as one request.

A question that meets no other leaves at once; behind one that is under way, and for a moment after two have met, the
next waits for company.
"""

from __future__ import annotations

import threading

from .._concurrency import Clock, Deadline, EventCount
from ..models.enums import Priority
from ..models.market import TickerData
from .batching import CROWD_SECONDS, PREDECESSOR_SECONDS, Answers
from .client import RestClient


class _Departure:
    """One list: open to more quotes until it is sealed. Guarded by its desk's lock."""

    def __init__(self, now: float) -> None:
        self.opened_at = now
        self.quotes: set[str] = set()
        self.passengers: set[object] = set()
        self.is_sealed = False


class QuoteLists:
    """Thread-safe. Each caller asks under its own deadline; the REST channel makes one call of equal ones."""

    def __init__(self, rest: RestClient, *, window_seconds: float, clock: Clock) -> None:
        self._rest = rest
        self._window = window_seconds
        self._clock = clock
        self._lock = threading.Lock()  # guards the three below, and the departures' own state
        self._changed = EventCount()
        self._open: _Departure | None = None
        self._away: list[_Departure] = []
        self._crowded_until = float("-inf")

    def tickers(
        self, quote: str, *, deadline: Deadline, priority: Priority, max_age: float | None
    ) -> Answers[TickerData]:
        """The tickers of all markets priced in `quote`, and of those whose turn it was at the same time."""
        me = object()
        try:
            departure = self._board(quote, me)
            self._wait_for_company(departure, deadline)
            self._seal(departure)
            return self._rest.tickers_of_quotes(
                sorted(departure.quotes), deadline=deadline, priority=priority, max_age=max_age
            )
        finally:
            self._leave(me)

    def _board(self, quote: str, passenger: object) -> _Departure:
        with self._lock:
            if self._away or self._open is not None:
                self._crowded_until = self._clock.monotonic() + CROWD_SECONDS
            departure = next((each for each in self._away if quote in each.quotes), self._open)
            if departure is None:
                departure = self._open = _Departure(self._clock.monotonic())
            departure.passengers.add(passenger)
            if not departure.is_sealed:
                departure.quotes.add(quote)
            return departure

    def _wait_for_company(self, departure: _Departure, deadline: Deadline) -> None:
        while not departure.is_sealed and not deadline.expired:
            now = self._clock.monotonic()
            patience = PREDECESSOR_SECONDS if self._away else self._window
            left = departure.opened_at + patience - now
            if left <= 0 or now >= self._crowded_until:
                return
            self._wait_for_change(departure, deadline.sooner(left))

    def _wait_for_change(self, departure: _Departure, deadline: Deadline) -> None:
        away = len(self._away)
        self._changed.wait_for(lambda: departure.is_sealed or len(self._away) != away, deadline)

    def _seal(self, departure: _Departure) -> None:
        with self._lock:
            if departure.is_sealed:
                return
            departure.is_sealed = True
            self._open = None
            self._away.append(departure)
        self._changed.notify_all()

    def _leave(self, passenger: object) -> None:
        """Whoever came has his answer, or was interrupted anywhere: a list that nobody is on any more is over."""
        with self._lock:
            for departure in [each for each in (self._open, *self._away) if each is not None]:
                departure.passengers.discard(passenger)
                if departure.passengers:
                    continue
                if departure is self._open:
                    self._open = None
                else:
                    self._away.remove(departure)
        self._changed.notify_all()

    def __repr__(self) -> str:
        with self._lock:
            return f"<QuoteLists {len(self._away)} under way>"
