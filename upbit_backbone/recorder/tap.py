"""Where a recorder is attached, and REST is timed: told of everything that comes in, never allowed to hold it up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from .._concurrency import Clock, Deadline
from ..errors import BannedError, InvalidRequestError, RateLimitError, ServerError, UpbitBackboneError
from ..exchange.endpoints import RestCall
from ..models.topic import Topic
from ..wire.rest_transport import RestResponse

if TYPE_CHECKING:
    from ..wire.deadline_socket import Departure


class Tap(Protocol):
    """Called by whoever receives, on its own thread, with the very times it gives the data. Never blocks or raises."""

    def frames(
        self, session: str, epoch: int, frames: Sequence[bytes], monotonic: float, received_at: datetime
    ) -> None: ...

    def subscribed(self, session: str, epoch: int, topics: frozenset[Topic]) -> None: ...

    def interrupted(self, session: str, epoch: int, topics: frozenset[Topic], reason: str) -> None: ...

    def rest(self, path: str, status: int, body: bytes, received_at: datetime) -> None:
        """An answer to GET `path` (with its query) in whatever status."""


class Transport(Protocol):
    """What `TappedTransport` stands in front of, and `ReplayTransport` instead of."""

    def get(self, call: RestCall, deadline: Deadline, departure: Departure | None = None) -> RestResponse: ...

    def close(self) -> None: ...


# (rate group, seconds, error or None, bytes on the wire)
Measure = Callable[[str, float, BaseException | None, int], object]


class TappedTransport:
    """A REST transport that shows its answers to `tap`, while there is one, and times each call for `measure`."""

    def __init__(self, inner: Transport, clock: Clock, measure: Measure = lambda *_: None) -> None:
        self._inner = inner
        self._clock = clock
        self._measure = measure
        self.tap: Tap | None = None

    def get(self, call: RestCall, deadline: Deadline, departure: Departure | None = None) -> RestResponse:
        began = self._clock.monotonic()
        try:
            response = self._inner.get(call, deadline, departure)
        except UpbitBackboneError as error:
            self._measure(call.group.value, self._clock.monotonic() - began, error, 0)
            raise
        self._measure(call.group.value, response.elapsed, error_of(response.status), response.wire_bytes)
        if (tap := self.tap) is None:
            return response
        received_at = self._clock.wall()
        tap.rest(call.target, response.status, response.body, received_at)
        return dataclasses.replace(response, received_at=received_at)

    def close(self) -> None:
        self._inner.close()

    def __repr__(self) -> str:
        return f"<TappedTransport {self._inner!r}{' recording' if self.tap else ''}>"


def error_of(status: int) -> UpbitBackboneError | None:
    """The class of error that a status stands for, None where it is an answer."""
    if status < 400:
        return None
    if status in (418, 429):
        return (BannedError if status == 418 else RateLimitError)(f"status {status}")
    return ServerError(f"status {status}", status=status) if status >= 500 else InvalidRequestError(f"status {status}")
