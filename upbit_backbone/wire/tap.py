"""Tap: where a recorder is attached; told of everything that comes in, never allowed to hold it up."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from .._concurrency import Clock, Deadline
from ..exchange.endpoints import RestCall
from ..models.topic import Topic
from .rest_transport import RestResponse, Transport

if TYPE_CHECKING:
    from .deadline_socket import Departure


class Tap(Protocol):
    """Called by whoever receives, on its own thread, with the very times it gives the data. Never blocks or raises."""

    def frames(
        self, session: str, epoch: int, frames: Sequence[bytes], monotonic: float, received_at: datetime
    ) -> None: ...

    def subscribed(self, session: str, epoch: int, topics: frozenset[Topic]) -> None: ...

    def interrupted(self, session: str, epoch: int, topics: frozenset[Topic], reason: str) -> None: ...

    def rest(self, path: str, status: int, body: bytes, received_at: datetime) -> None:
        """An answer to GET `path` (with its query) in whatever status."""


class TappedTransport:
    """A REST transport that shows its answers to `tap`, while there is one."""

    def __init__(self, inner: Transport, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock
        self.tap: Tap | None = None

    def get(self, call: RestCall, deadline: Deadline, departure: Departure | None = None) -> RestResponse:
        response = self._inner.get(call, deadline, departure)
        if (tap := self.tap) is None:
            return response
        # The very time the answer will carry: a replay has to give the same.
        received_at = self._clock.wall()
        tap.rest(call.target, response.status, response.body, received_at)
        return dataclasses.replace(response, received_at=received_at)

    def close(self) -> None:
        self._inner.close()

    def __repr__(self) -> str:
        return f"<TappedTransport {self._inner!r}{' recording' if self.tap else ''}>"
