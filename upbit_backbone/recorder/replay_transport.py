"""REST from a recording: the same question gets the answers it got then, in the same order."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .._concurrency import Deadline
from ..errors import ChannelUnavailableError, one_line
from ..wire.endpoints import MARKETS, RestCall
from ..wire.rest_transport import RestResponse
from .format import RecordKind
from .recording import Recording

if TYPE_CHECKING:
    from ..wire.rest_socket import Departure

Place = tuple[int, int]  # (offset of the member, which record of it)


class ReplayTransport:
    """Stands in for RestTransport. A question asked more often than then gets its last answer again.

    A question nobody asked then raises ChannelUnavailableError. Only the market list is made up from the recorded
    topics where it is missing, because everything needs it.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._lock = threading.Lock()  # guards everything below
        self._places: dict[str, list[Place]] | None = None
        self._symbols: set[str] = set()
        self._given: Counter[str] = Counter()

    def get(self, call: RestCall, deadline: Deadline, departure: Departure | None = None) -> RestResponse:
        status, body = self._answer(call)
        if departure is not None:
            departure.sent()
        return RestResponse(status, {}, body, 0.0, len(body))

    def _answer(self, call: RestCall) -> tuple[int, bytes]:
        with self._lock:
            places = self._index().get(call.target)
            if places is None and call.path == MARKETS.path:
                return 200, _made_up_markets(sorted(self._symbols))
            if places is None:
                raise ChannelUnavailableError(
                    f"{one_line(call)}: the recording {one_line(self._recording.path)} has no answer to this"
                )
            offset, position = places[min(self._given[call.target], len(places) - 1)]
            self._given[call.target] += 1
        record = self._recording.member(offset)[position]
        return int((record.details or {}).get("status", 200)), record.blobs[0]

    def _index(self) -> dict[str, list[Place]]:
        if self._places is None:
            self._places, self._symbols = _read_index(self._recording)
        return self._places

    def close(self) -> None:
        """There is nothing to close."""

    def __repr__(self) -> str:
        return f"<ReplayTransport {one_line(self._recording.path)}>"


def _read_index(recording: Recording) -> tuple[dict[str, list[Place]], set[str]]:
    """Where the answers to each target are, and which symbols were streamed."""
    places: dict[str, list[Place]] = {}
    symbols: set[str] = set()
    member, position = -1, -1
    for offset, record in recording.located():
        member, position = (member, position + 1) if offset == member else (offset, 0)
        details = record.details or {}
        if record.kind is RecordKind.REST:
            places.setdefault(str(details.get("path")), []).append((offset, position))
        elif record.kind is RecordKind.SUBSCRIBED:
            symbols.update(str(topic[1]) for topic in details.get("topics", ()))
    return places, symbols


def _made_up_markets(symbols: Iterable[str]) -> bytes:
    rows = [{"market": symbol, "korean_name": symbol, "english_name": symbol} for symbol in symbols]
    return json.dumps(rows).encode()
