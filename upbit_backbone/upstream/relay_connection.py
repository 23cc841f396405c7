"""Relay connection: what a relay publishes to Redis, in the guise of a WebSocket to Upbit.

A session does not know the difference: it sends its subscription and its pings, and gets frames and pongs. What a pong
promises (all that was sent before the ping is here) holds to the very line to Upbit: a ping is answered by the first
heartbeat of the relay that was published after it, and by none in which the relay says that its own line proves
nothing. The heartbeat comes behind the data, on one connection from the relay to Redis and on one from there to here.
So a dead relay, one that is cut off, and one whose line is mute are all the same: pings are not answered.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

from .._concurrency import SYSTEM_CLOCK, Clock, Deadline, Waitable
from ..backfill.pages import TradesPage
from ..errors import ClosedError, InvalidRequestError, NetworkError, ProtocolError, UpbitBackboneError
from ..exchange.fields import SHUFFLE
from ..exchange.stream import listed_topics
from ..models.enums import DataSource, DataType, StreamType
from ..models.market import CandleData, TradeData
from ..models.request import Topic
from ..models.session import SubscriptionList
from ..wire.frames import MAX_CONTROL_BYTES, PONG, TEXT
from ..wire.pushed_line import Answer, PushedLine
from ..wire.redis_server import RedisServer
from ..wire.relay_keys import SCHEMA, Keys
from .sightings import Sightings, heard
from .stream_history import StreamHistory, trade_frame, traded_at

TIMEOUT_SECONDS: Final = 1.0  # of one call to Redis
DEMAND_SECONDS: Final = 15.0  # for which the relay streams what is not asked for again
RENEW_SECONDS: Final = 4.0  # with the first ping after that, and there is one every five
REPLAYED_ENTRIES: Final = 1_000  # of one stream; what was missed beyond that is asked of REST
NEWEST_ENTRIES: Final = 16  # among which the newest is, where nothing of the stream has come yet
ENTRIES_BEFORE: Final = 64  # at most, of those that the last one that came may have overtaken

# The last trade or candle that came of a topic, whatever way; None where none has.
LastOf = Callable[[Topic], TradeData | CandleData | None]


def frame(opcode: int, payload: bytes) -> bytes:
    """A whole WebSocket frame as a server sends it."""
    size = len(payload)
    if size <= MAX_CONTROL_BYTES:
        return bytes((0x80 | opcode, size)) + payload
    extended = b"\x7e" + size.to_bytes(2, "big") if size < 1 << 16 else b"\x7f" + size.to_bytes(8, "big")
    return bytes((0x80 | opcode,)) + extended + payload


class NoRelayError(NetworkError):
    """Redis answers, and no relay leads there at the moment."""


class RelayTransport:
    """Opens connections to what a relay publishes under `prefix` of the server at `url`. Usable from any thread.

    `last_of` tells from where on missed trades and candles are read from their streams, and `doubt` is told, on the
    session's thread, which topics the relay does not call current any more. Raises InvalidRequestError where the URL or
    the prefix is none.
    """

    def __init__(
        self,
        url: str,
        prefix: str,
        *,
        last_of: LastOf,
        doubt: Callable[[Iterable[Topic]], object],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._url = url
        self._keys = Keys(prefix)
        self._last_of = last_of
        self._doubt = doubt
        self._clock = clock
        server = self._server()  # raises where the URL is none
        self.place: Final = server.place
        server.close()

    def _server(self) -> RedisServer:
        return RedisServer(self._url, timeout=TIMEOUT_SECONDS, name="upbit-backbone", explain=self._explained)

    def check(self) -> str:
        """The relay that leads; NetworkError, AuthenticationError, ServerError or InvalidRequestError where there is
        nothing to be had, in words why."""
        server = self._server()
        try:
            return self._leader(server)
        finally:
            server.close()

    def open(self, deadline: Deadline, *, stop: Waitable) -> RelayConnection:
        """A connection to the relay that leads; raises as `check` does. Takes a second for each call at most."""
        if stop.is_set() or deadline.expired:
            raise ClosedError("called off")
        server = self._server()
        try:
            self._leader(server)
            pushed = server.listen(self._keys.pulse)
        except BaseException:
            server.close()
            raise
        return RelayConnection(self._keys, server, pushed, self._last_of, self._doubt, self._clock)

    def history(self, rest: TradesPage, is_direct: Callable[[], bool]) -> StreamHistory:
        """What the relay keeps of past trades, and behind that what `rest` gives."""
        return StreamHistory(self._server, self._keys, rest, is_direct)

    def seen(self) -> Sightings:
        """When each topic last moved, as the relay that leads has seen it; raises as Redis fails."""
        server = self._server()
        try:
            (text,) = server.ask([("GET", self._keys.seen)])
        finally:
            server.close()
        return heard(text)

    def _leader(self, server: RedisServer) -> str:
        keys, prefix = self._keys, self._keys.prefix
        schema, leader = server.ask([("GET", keys.schema), ("GET", keys.leader)])
        if schema is None:
            raise NoRelayError(f"{self.place}: no relay has published under the prefix {prefix!r}")
        if schema != SCHEMA.encode():
            raise self._foreign(schema[:100].decode("utf-8", "replace"))
        # The lease ends two seconds after the leader's last sign of life, by the clock of Redis: that of the relay's
        # machine, or of this one, may be wrong by an hour.
        if leader is None:
            raise NoRelayError(f"{self.place}: no relay leads under the prefix {prefix!r} now")
        return str(leader.decode("utf-8", "replace").partition(" ")[2])

    def _explained(self, text: str) -> Exception | None:
        return self._foreign("keys of another kind") if "WRONGTYPE" in text else None

    def _foreign(self, found: str) -> InvalidRequestError:
        return InvalidRequestError(
            f"{self.place} holds under the prefix {self._keys.prefix!r} what no relay of this version wrote ({found}); "
            f"expected {SCHEMA!r}"
        )

    def __repr__(self) -> str:
        return f"<RelayTransport {self.place} {self._keys.prefix}>"


class RelayConnection:
    """An open connection, owned by one I/O thread; only `abort()` may be called from others.

    Two lines to Redis: on one it listens, with the other it asks, for moments and with a second's limit.
    """

    source: Final = DataSource.RELAY

    def __init__(
        self,
        keys: Keys,
        server: RedisServer,
        pushed: PushedLine,
        last_of: LastOf,
        doubt: Callable[[Iterable[Topic]], object],
        clock: Clock,
    ) -> None:
        self._place = server.place
        self._keys = keys
        self._pulse = keys.pulse.encode()
        self._server = server
        self._pushed = pushed
        self._sock: socket.socket = pushed.sock
        self._last_of = last_of
        self._doubt = doubt
        self._now = clock.monotonic
        self._topics: frozenset[Topic] = frozenset()
        self._stale: frozenset[Topic] = frozenset()
        self._held: dict[bytes, Topic] = {}  # by channel: what is shown only once the relay has told that all is there
        self._ready = bytearray()  # frames that nobody has taken yet
        self._failed: Exception | None = None
        self._token: bytes | None = None  # of the relay that leads
        self._renewed_at = float("-inf")
        self._pings: dict[bytes, float] = {}  # when sent; oldest first
        self._passed: bytes | None = None  # the latest that Redis has read: what comes now was published after it
        # Guards _is_closed and the moment of closing, as with a WebSocket.
        self._lock = threading.Lock()
        self._is_closed = False

    def fileno(self) -> int:
        return self._sock.fileno()

    def pending(self) -> int:
        return int(bool(self._ready) or self._pushed.has_more or self._failed is not None)

    # --- what comes ---------------------------------------------------------------------------------------------

    def recv(self) -> bytes | None:
        """Frames of what is there, without waiting; None if nothing is. NetworkError or ProtocolError when broken."""
        if self._failed is None:
            try:
                for answer in self._pushed.answers():
                    self._take(answer)
            except UpbitBackboneError as error:
                self._failed = error  # behind what came before it
        if self._ready:
            data = bytes(self._ready)
            self._ready.clear()
            return data
        if self._failed is not None:
            raise self._failed
        return None

    def _take(self, answer: Answer) -> None:
        match answer:
            case [b"message", bytes(channel), bytes(data)]:
                if channel == self._pulse:
                    self._hear(data)
                elif channel not in self._held:  # else it is in the stream as well, which is read from its place on
                    self._ready += frame(TEXT, data)
            case [b"pong", bytes(payload)] if payload in self._pings:
                self._passed = payload

    def _hear(self, pulse: bytes) -> None:
        """The relay lives, and says of which markets it can prove nothing, and how late the others are at most."""
        token, _, words = pulse.partition(b" ")
        if self._token not in (None, token):
            # As another line to Upbit is another connection: what came late in between, and does not change again for
            # an hour, is shown anew, and nobody has to be asked whether it still holds.
            raise NetworkError(f"{self._place}: another relay leads")
        self._token = token
        try:
            told = json.loads(words)
            symbols, lag = frozenset(map(str, told["stale"])), float(told["lag"])
        except (ValueError, TypeError, KeyError) as error:
            raise ProtocolError(f"{self._place}: a heartbeat that cannot be read: {pulse[:60]!r}") from error
        if self._held:
            held, self._held = self._held, {}
            self._show(held.values())
        stale = frozenset(topic for topic in self._topics if topic.symbol in symbols)
        # Said again with each heartbeat: what comes meanwhile may be as late as the relay's line.
        if stale:
            self._doubt(stale)
        cleared, self._stale = self._stale - stale, stale
        if cleared := cleared & self._topics:
            # A quiet market's last value is proven again by being shown again.
            self._show(cleared)
        is_proof = not self._topics or stale != self._topics
        if self._passed is not None and is_proof and self._now() - lag >= self._pings.get(self._passed, 0.0):
            self._ready += frame(PONG, self._passed)
            answered = self._pings.pop(self._passed, 0.0)
            self._pings = {each: at for each, at in self._pings.items() if at > answered}
            self._passed = None

    # --- what is asked ------------------------------------------------------------------------------------------

    def send_text(self, text: str) -> None:
        """Upbit's own messages: the whole set that is wanted, or the question for it."""
        parts = json.loads(text)
        if any("method" in part for part in parts):
            self._ready += frame(TEXT, self._listed())
            return
        entries = tuple((part["type"], tuple(part["codes"]), part.get("level")) for part in parts if "type" in part)
        topics = listed_topics(SubscriptionList(entries, None))
        before, self._topics = self._topics, topics
        if added := sorted(map(self._keys.live, topics - before)):
            self._pushed.send("SUBSCRIBE", *added)
        if gone := sorted(map(self._keys.live, before - topics)):
            self._pushed.send("UNSUBSCRIBE", *gone)
        self._stale &= topics
        self._held = {}
        self._renew()
        # After the subscription, so that nothing is between the two. Of all, as Upbit does it: what is shown again is
        # the proof that nothing else has been there meanwhile.
        self._show(topics)

    def _listed(self) -> bytes:
        entries = [
            {"type": each.data_type.value, "codes": [each.symbol]} | ({"level": str(each.level)} if each.level else {})
            for each in sorted(self._topics)
        ]
        return json.dumps({"method": "LIST_SUBSCRIPTIONS", "result": entries}).encode()

    def _renew(self) -> None:
        """Have the relay stream what is wanted here, for a while; by the clock of Redis."""
        if not self._topics:
            return
        until = round((self._server.time() + DEMAND_SECONDS) * 1000)
        wanted = [part for topic in sorted(self._topics) for part in (until, str(topic))]
        self._server.ask([("ZADD", self._keys.demand, *wanted)])
        self._renewed_at = self._now()

    def _show(self, topics: Iterable[Topic]) -> None:
        """The latest of each topic, and of trades and candles what has come since the last one that is known here."""
        ordered = sorted(topics)
        last = {topic: self._last_of(topic) for topic in ordered if topic.data_type not in _STATES}
        asked: list[tuple[Any, ...]] = []
        for topic in ordered:
            if topic in last:
                count = REPLAYED_ENTRIES if last[topic] is not None else NEWEST_ENTRIES
                asked.append(("XREVRANGE", self._keys.stream(topic), "+", "-", "COUNT", count))
            if topic.data_type is not DataType.TRADE:
                asked.append(("HGET", self._keys.latest(topic), "frame"))
        answers = iter(self._server.ask(asked))
        for topic in ordered:
            if topic in last:
                self._replay(topic, next(answers), last[topic])
            if topic.data_type is not DataType.TRADE and (shown := next(answers)) is not None:
                self._ready += frame(TEXT, shown)

    def _replay(self, topic: Topic, newest_first: list[Any], last: TradeData | CandleData | None) -> None:
        entries = [fields for _, fields in reversed(newest_first)]
        if topic.data_type is not DataType.TRADE:
            if last is not None:  # without one, the candle that is forming is the first
                since = round(last.timestamp.timestamp() * 1000)
                for entry in entries:
                    if entry.get(b"id", b"").isdigit() and int(entry[b"id"]) >= since:
                        self._ready += frame(TEXT, entry.get(b"data", b""))
            return
        number = b"" if last is None else str(getattr(last, "sequential_id", None)).encode()
        place = next((index for index, entry in enumerate(entries) if entry.get(b"id") == number), None)
        if place is None and last is not None and self._token is None:
            # Where Redis has lost its memory, the relay tells it first what it had, and only then that it leads.
            self._held[self._keys.live(topic).encode()] = topic
            return
        if place is None:
            # It was not streamed here, or too long ago: the newest alone, as Upbit gives it, and the gap is REST's. By
            # time: what was repaired, or overtaken, comes into the stream later than it was traded, and whoever began
            # with that would lack for good what stands before it and is newer.
            newest = max(
                enumerate(entries), key=lambda each: (traded_at(each[1].get(b"data", b"")), each[0]), default=None
            )
            chosen = [] if newest is None else [newest[1]]
        else:
            # What is older was had, or repaired, and may be forgotten by now: it would be taken for news.
            since = entries[place]
            overtaken = traded_at(since.get(b"data", b"")) - SHUFFLE.total_seconds()
            before = entries[max(0, place - ENTRIES_BEFORE) : place]
            before = [entry for entry in before if traded_at(entry.get(b"data", b"")) >= overtaken]
            # First what shows that nothing is missing, then what may have come in between.
            chosen = [since, *before, *entries[place + 1 :]]
        for index, entry in enumerate(chosen):
            kind = StreamType.REALTIME if index else StreamType.SNAPSHOT
            self._ready += frame(TEXT, trade_frame(entry.get(b"data", b""), kind))

    def send_ping(self, payload: bytes = b"") -> None:
        self._pings[payload] = self._now()
        self._pushed.send("PING", payload)
        if self._now() - self._renewed_at >= RENEW_SECONDS:
            self._renew()

    def send_pong(self, payload: bytes = b"") -> None:
        """Nothing here asks for one."""

    def send_close(self, code: int = 1000) -> bool:
        return True

    # --- the end ------------------------------------------------------------------------------------------------

    def abort(self) -> None:
        """Cut the connection, from any thread, without waiting."""
        with self._lock:
            if not self._is_closed:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._pushed.close()
            self._server.close()

    def __repr__(self) -> str:
        return f"<RelayConnection {self._place} {len(self._topics)} topics{' closed' if self._is_closed else ''}>"


_STATES: Final = frozenset({DataType.TICKER, DataType.ORDERBOOK})
