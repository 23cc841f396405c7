"""REST from a recording: the same question gets the answers it got then, in the same order."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from .._concurrency import Deadline, EventCount, Flag, get_logger, join_all, spawn
from ..errors import ChannelUnavailableError, RequestTimeoutError, one_line
from ..exchange.endpoints import MARKETS, RestCall
from ..wire.rest_transport import RestResponse
from .format import Record, RecordKind
from .recording import Place, Recording

if TYPE_CHECKING:
    from ..wire.io_deadline import Departure

log = get_logger("upbit_backbone.recorder")

CLOSE_SECONDS = 1.0  # the index is left after the block in hand


class ReplayTransport:
    """Stands in for RestTransport. A question asked more often than then gets its last answer again.

    While the recording is played (between `begin` and `end`), an answer is given no earlier than at its place in the
    recording; whoever asks earlier waits for it, until the deadline. A question nobody asked then raises
    ChannelUnavailableError. Only the market list is made up from the recorded topics where it is missing, because
    everything needs it.

    Where the answers are is found out on a thread of its own, from the first question on, so that in a recording of
    any size a question ends by its deadline (RequestTimeoutError). Of what was answered before `since` only the last
    answer to each question counts, and nothing from `until` on.
    """

    def __init__(self, recording: Recording, *, since: datetime | None = None, until: datetime | None = None) -> None:
        self._recording = recording
        self._since = since
        self._until = until
        self._stop = Flag()
        self._lock = threading.Lock()  # guards everything below, but for what is one read or one write
        self._moved = EventCount()
        self._places: dict[str, list[Place]] = {}
        self._symbols: set[str] = set()
        self._indexer: threading.Thread | None = None
        self._is_indexed = False
        self._is_past_start = since is None  # whether no earlier answer can be replaced by a later one any more
        self._given: Counter[str] = Counter()
        self._is_playing = False
        self._reached = Place(0, 0, -1)
        self._awaited: list[Place] = []

    def get(self, call: RestCall, deadline: Deadline, departure: Departure | None = None) -> RestResponse:
        place = self._place(call, deadline)
        if departure is not None:
            departure.sent()
        if place is None:
            body = _made_up_markets(sorted(self._symbols))
            return RestResponse(200, {}, body, 0.0, len(body))
        self._wait_for(place, call, deadline)
        record = self._recording.at(place)
        status, body = int((record.details or {}).get("status", 200)), record.blobs[0]
        return RestResponse(status, {}, body, 0.0, len(body), record.wall)

    def _place(self, call: RestCall, deadline: Deadline) -> Place | None:
        """Where the next answer to this question is; None for a market list that was not recorded."""
        while True:
            number = self._given[call.target] + 1
            self._find(call, number, deadline)
            with self._lock:
                if self._given[call.target] + 1 != number:
                    continue  # meanwhile somebody else was given that one
                places = self._places.get(call.target)
                if places is None and call.path == MARKETS.path:
                    return None
                if places is None:
                    raise ChannelUnavailableError(
                        f"{one_line(call)}: the recording {one_line(self._recording.path)} has no answer to this"
                    )
                self._given[call.target] = number
                return places[min(number, len(places)) - 1]

    def _find(self, call: RestCall, number: int, deadline: Deadline) -> None:
        """Wait until so many answers to this question are found, or the whole recording was looked through."""
        with self._lock:
            if self._indexer is None and not self._stop.is_set():
                self._indexer = spawn(self._index, "upbit-replay-index")

        def is_found() -> bool:
            return self._is_indexed or (self._is_past_start and len(self._places.get(call.target, ())) >= number)

        if not self._moved.wait_for(is_found, deadline):
            raise RequestTimeoutError(f"{one_line(call)}: the recording was not looked through by the deadline")

    def _index(self) -> None:
        try:
            for place, record in self._recording.located(None, self._until, RecordKind.REST, RecordKind.SUBSCRIBED):
                if self._stop.is_set():
                    return
                with self._lock:
                    self._learn(place, record)
                self._moved.notify_all()
        except BaseException as error:  # noqa: BLE001
            # Whatever it is: one pass, so what was found until then can be answered with, the rest cannot.
            log.warning("the recording cannot be looked through to its end: %s", one_line(error))
        finally:
            self._is_indexed = True
            self._moved.notify_all()

    def _learn(self, place: Place, record: Record) -> None:
        details = record.details or {}
        is_early = self._since is not None and record.wall < self._since
        self._is_past_start = self._is_past_start or not is_early
        if record.kind is RecordKind.SUBSCRIBED:
            self._symbols.update(str(topic[1]) for topic in details.get("topics", ()))
            return
        places = self._places.setdefault(str(details.get("path")), [])
        if is_early:
            places.clear()
        places.append(place)

    def _wait_for(self, place: Place, call: RestCall, deadline: Deadline) -> None:
        try:
            self._awaited.append(place)
            is_there = self._moved.wait_for(lambda: not self._is_playing or self._reached >= place, deadline)
        finally:
            with contextlib.suppress(ValueError):  # interrupted before it was entered
                self._awaited.remove(place)
        if not is_there:
            raise RequestTimeoutError(
                f"{one_line(call)}: the replay did not come to the recorded answer by the deadline"
            )

    # What the replay tells

    def begin(self) -> None:
        self._is_playing = True

    def reached(self, place: Place) -> None:
        """Everything up to `place` was played."""
        self._reached = place
        if self._awaited:
            self._moved.notify_all()

    def end(self) -> None:
        """Nothing more is played: every answer is there."""
        self._is_playing = False
        self._moved.notify_all()

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for an answer that is still to come."""
        return any(place > self._reached for place in list(self._awaited))

    def close(self) -> None:
        """Whoever waits for an answer gets it. Idempotent."""
        self._stop.set()
        self.end()
        with self._lock:
            indexer = self._indexer
        join_all([indexer] if indexer else [], Deadline.after(CLOSE_SECONDS))

    def __repr__(self) -> str:
        return f"<ReplayTransport {one_line(self._recording.path)}>"


def _made_up_markets(symbols: Iterable[str]) -> bytes:
    rows = [{"market": symbol, "korean_name": symbol, "english_name": symbol} for symbol in symbols]
    return json.dumps(rows).encode()
