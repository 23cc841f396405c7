"""REST from a recording: the same question gets the answers it got then, in the same order."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .._concurrency import Deadline, wait_for
from ..errors import ChannelUnavailableError, RequestTimeoutError, one_line
from ..exchange.endpoints import MARKETS, RestCall
from ..wire.rest_transport import RestResponse
from .format import RecordKind
from .recording import Place, Recording

if TYPE_CHECKING:
    from ..wire.deadline_socket import Departure


class ReplayTransport:
    """Stands in for RestTransport. A question asked more often than then gets its last answer again.

    While the recording is played (between `begin` and `end`), an answer is given no earlier than at its place in the
    recording; whoever asks earlier waits for it, until the deadline. A question nobody asked then raises
    ChannelUnavailableError. Only the market list is made up from the recorded topics where it is missing, because
    everything needs it.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._moved = threading.Condition()  # guards everything below
        self._places: dict[str, list[Place]] | None = None
        self._symbols: set[str] = set()
        self._given: Counter[str] = Counter()
        self._is_playing = False
        self._reached = Place(0, 0, -1)
        self._awaited: list[Place] = []

    def get(self, call: RestCall, deadline: Deadline, departure: Departure | None = None) -> RestResponse:
        place = self._place(call)
        if departure is not None:
            departure.sent()
        if place is None:
            body = _made_up_markets(sorted(self._symbols))
            return RestResponse(200, {}, body, 0.0, len(body))
        self._wait_for(place, call, deadline)
        record = self._recording.at(place)
        status, body = int((record.details or {}).get("status", 200)), record.blobs[0]
        return RestResponse(status, {}, body, 0.0, len(body), record.wall)

    def _place(self, call: RestCall) -> Place | None:
        """Where the next answer to this question is; None for a market list that was not recorded."""
        with self._moved:
            places = self._index().get(call.target)
            if places is None and call.path == MARKETS.path:
                return None
            if places is None:
                raise ChannelUnavailableError(
                    f"{one_line(call)}: the recording {one_line(self._recording.path)} has no answer to this"
                )
            self._given[call.target] += 1
            return places[min(self._given[call.target], len(places)) - 1]

    def _wait_for(self, place: Place, call: RestCall, deadline: Deadline) -> None:
        with self._moved:
            self._awaited.append(place)
            try:
                is_there = wait_for(self._moved, lambda: not self._is_playing or self._reached >= place, deadline)
            finally:
                self._awaited.remove(place)
        if not is_there:
            raise RequestTimeoutError(
                f"{one_line(call)}: the replay did not come to the recorded answer by the deadline"
            )

    # What the replay tells

    def begin(self) -> None:
        with self._moved:
            self._is_playing = True

    def reached(self, place: Place) -> None:
        """Everything up to `place` was played."""
        with self._moved:
            self._reached = place
            if self._awaited:
                self._moved.notify_all()

    def end(self) -> None:
        """Nothing more is played: every answer is there."""
        with self._moved:
            self._is_playing = False
            self._moved.notify_all()

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for an answer that is still to come."""
        with self._moved:
            return any(place > self._reached for place in self._awaited)

    def _index(self) -> dict[str, list[Place]]:
        if self._places is None:
            self._places, self._symbols = _read_index(self._recording)
        return self._places

    def close(self) -> None:
        """Whoever waits for an answer gets it."""
        self.end()

    def __repr__(self) -> str:
        return f"<ReplayTransport {one_line(self._recording.path)}>"


def _read_index(recording: Recording) -> tuple[dict[str, list[Place]], set[str]]:
    """Where the answers to each target are, and which symbols were streamed."""
    places: dict[str, list[Place]] = {}
    symbols: set[str] = set()
    for place, record in recording.located():
        details = record.details or {}
        if record.kind is RecordKind.REST:
            places.setdefault(str(details.get("path")), []).append(place)
        elif record.kind is RecordKind.SUBSCRIBED:
            symbols.update(str(topic[1]) for topic in details.get("topics", ()))
    return places, symbols


def _made_up_markets(symbols: Iterable[str]) -> bytes:
    rows = [{"market": symbol, "korean_name": symbol, "english_name": symbol} for symbol in symbols]
    return json.dumps(rows).encode()
