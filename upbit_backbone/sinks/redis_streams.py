"""Redis Streams (extra `[redis]`): the newest of each market in a capped stream, each item once, for any reader there.

    {upbit-kept}:trade:KRW-BTC      a stream: `id`, `data` (the model's JSON); likewise candle.1m, ticker, orderbook
    {upbit-kept}:coverage           a hash: trade:KRW-BTC → [[start,end],…], what is complete but for the gaps
    {upbit-kept}:gaps               a hash: trade:KRW-BTC → what is missing all the same

Times in the hashes are microseconds since 1970. The braces keep the keys of one prefix on one node of a cluster.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgspec

from .._file_lock import FileLock
from ..errors import InvalidRequestError, ServerError, one_line
from ..models.events import GapEvent
from ..models.market import CandleData, OrderbookData, TickerData, TradeData
from ..models.number import encoded
from ..wire.redis_server import RedisServer
from .base import Batch, Hole, Sink, Span
from .columns import from_micros, to_micros, type_word
from .coverage import TICK, Interval, KnownGap, merged, without
from .ledger import holes_of

SCHEMA: Final = "upbit-backbone sink 1"
PREFIX: Final = "upbit-kept"
TIMEOUT_SECONDS: Final = 10.0
KEPT: Final = 10_000
ATTEMPTS: Final = 50  # at what is complete, which another recorder may enter at the same moment
_PREFIX: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)

# KEYS: schema, coverage, gaps, then stream, ids, entries for each topic with items. ARGV: schema, entries kept, ids
# kept, topics whose coverage changes; for each of these field, coverage before and after, gaps before and after; then
# for each topic with items their number, and for each identity, time, rank, mark, data.
# Nothing is written before all is known to be as it was when the arguments were made: so it is all or nothing.
_WRITE: Final = """
local found = redis.call('GET', KEYS[1])
if found and found ~= ARGV[1] then return redis.error_reply('SCHEMA ' .. found) end
local at = 5
for i = 1, ARGV[4] do
  if (redis.call('HGET', KEYS[2], ARGV[at]) or '') ~= ARGV[at + 1] then return -1 end
  if (redis.call('HGET', KEYS[3], ARGV[at]) or '') ~= ARGV[at + 3] then return -1 end
  at = at + 5
end
if not found then redis.call('SET', KEYS[1], ARGV[1]) end
at = 5
for i = 1, ARGV[4] do
  if ARGV[at + 2] ~= '' then redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 2]) end
  if ARGV[at + 4] ~= '' then redis.call('HSET', KEYS[3], ARGV[at], ARGV[at + 4]) end
  at = at + 5
end
local news = 0
for k = 4, #KEYS, 3 do
  local stream, ids, entries = KEYS[k], KEYS[k + 1], KEYS[k + 2]
  local limit, oldest = tonumber(ARGV[3]), nil
  local count = tonumber(ARGV[at])
  at = at + 1
  for i = 1, count do
    local identity, time, rank, mark = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), ARGV[at + 3]
    local is_new = redis.call('ZSCORE', ids, identity) == false
    if is_new and redis.call('ZCARD', ids) >= limit then
      -- What is older than all that is remembered may have been there before.
      oldest = oldest or tonumber(redis.call('ZRANGE', ids, 0, 0, 'WITHSCORES')[2])
      is_new = time > oldest
    elseif not is_new and mark ~= '' then
      local known = redis.call('HGET', entries, identity)
      if known then
        local entry, had, said = string.match(known, '^(%S+) (%S+) (%S+)$')
        if rank >= tonumber(had) and mark ~= said then
          redis.call('XDEL', stream, entry)
          is_new = true
        end
      end
    end
    if is_new then
      redis.call('ZADD', ids, time, identity)
      local entry = redis.call('XADD', stream, 'MAXLEN', '~', ARGV[2], '*', 'id', identity, 'data', ARGV[at + 4])
      if mark ~= '' then redis.call('HSET', entries, identity, entry .. ' ' .. ARGV[at + 2] .. ' ' .. mark) end
      news = news + 1
    end
    at = at + 5
  end
  local over = redis.call('ZCARD', ids) - limit
  if over > 0 then
    local gone = redis.call('ZPOPMIN', ids, over)
    for i = 1, #gone, 2 do redis.call('HDEL', entries, gone[i]) end
  end
end
return news
"""

_encode: Final = msgspec.json.Encoder(enc_hook=encoded).encode


@dataclass
class _Known:
    """What is complete of one topic: stretches, and [first, last, reason, recovered, told_at] of what is missing."""

    spans: list[Interval] = field(default_factory=list)
    gaps: list[list[Any]] = field(default_factory=list)

    @classmethod
    def read(cls, spans: str, gaps: str) -> _Known:
        found = [Interval(from_micros(start), from_micros(end)) for start, end in msgspec.json.decode(spans or "[]")]
        return cls(found, msgspec.json.decode(gaps or "[]"))

    def written(self) -> tuple[str, str]:
        spans = [(to_micros(each.start), to_micros(each.end)) for each in self.spans]
        return _encode(spans).decode(), _encode(self.gaps).decode()

    @property
    def known_gaps(self) -> list[KnownGap]:
        return [KnownGap(from_micros(first), from_micros(last), why, got) for first, last, why, got, _ in self.gaps]

    def cover(self, span: Span) -> None:
        """Enter a stretch; of what was missing, what a fill brought is so no longer."""
        self.spans = merged([*self.spans, Interval(span.start, span.end)])
        if not span.is_fill:
            return
        filled = [Interval(span.start, span.end)]
        self.gaps = [
            [to_micros(piece.start), to_micros(piece.end - TICK), *rest]
            for gap, (_, _, *rest) in zip(self.known_gaps, self.gaps, strict=True)
            for piece in without([Interval(gap.start, gap.end + TICK)], filled)
        ]

    def tell(self, event: GapEvent) -> None:
        if event.missing_start is None or event.missing_end is None:
            return
        missing = to_micros(event.missing_start), to_micros(event.missing_end)
        gap = [*missing, event.reason, event.recovered, to_micros(event.at)]
        if gap not in self.gaps:  # it is told again with a batch that failed
            self.gaps.append(gap)


class RedisStreamsSink(Sink):
    """Keeps the newest `kept` items or somewhat more of each market and type in a stream of the Redis server at `url`
    (`redis://`, `rediss://` for TLS, or `unix://`), under keys that begin with `prefix`.

    Each trade is there once, whoever writes and however often: several recorders may share a prefix. A corrected candle
    takes the place of the earlier one as an entry of its own at the end, so that readers see it, and none that forms
    that of a final one. A batch is one script, which happens as a whole. What is remembered of a stream outlasts its
    entries by as many again; what is older than that is not written any more. How safe what Redis took is with it is
    Redis's to say (`appendfsync`).

    While the server is away, batches wait as with every sink; for `spill` see `PostgresSink`. What was missed since
    the last recording is fetched as far as Upbit still has it.

    `open` raises NetworkError where the server cannot be reached, AuthenticationError where it refuses the user or
    password, InvalidRequestError for a `url` that is none, or a prefix that holds what this version did not write;
    FileInUseError while another recorder has the `spill` file. The password is in no log, repr or error.
    """

    def __init__(self, url: str, *, prefix: str = PREFIX, kept: int = KEPT, spill: str | Path | None = None) -> None:
        if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
            raise InvalidRequestError(
                f"prefix={prefix!r}: expected 1 to 64 letters, digits or any of . _ : - to begin the keys in Redis with"
            )
        self.prefix = prefix
        self.spill_path = None if spill is None else Path(spill)
        self._kept = kept
        self._lock: FileLock | None = None
        self._server = RedisServer(url, timeout=TIMEOUT_SECONDS, name="upbit-backbone-sink", explain=self._explained)
        self._hashes = [self._key(name) for name in ("schema", "coverage", "gaps")]

    @property
    def name(self) -> str:
        return f"redis:{self.prefix}"

    def _key(self, name: str) -> str:
        return f"{{{self.prefix}}}:{name}"

    def open(self) -> None:
        """See the class."""
        if self.spill_path is not None:
            self._lock = FileLock(self.spill_path, "recording")
        try:
            self._update(())
        except BaseException:
            self.close()
            raise

    def write(self, batch: Batch) -> int:
        """All of a batch by one script; how many of its items were not there before."""
        return self._update(batch.items, batch.spans)

    def gap(self, event: GapEvent) -> None:
        """One entry more in `gaps`."""
        self._update((), gap=event)

    def holes(self) -> list[Hole]:
        """Between what is complete, and from the end of the last stretch on."""
        _, coverage, gaps = self._hashes
        spans, missing = self._server.hash(coverage), self._server.hash(gaps)
        known = {topic: _Known.read(text, missing.get(topic, "")) for topic, text in spans.items()}
        found = []
        for topic, each in sorted(known.items()):
            kind, _, symbol = topic.rpartition(":")
            found += holes_of((symbol, kind), each.spans, each.known_gaps)
        return found

    def close(self) -> None:
        """Let go of the server."""
        self._server.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _update(self, items: Iterable[Any], spans: Sequence[Span] = (), gap: GapEvent | None = None) -> int:
        topics = sorted({f"{each.type}:{each.symbol}" for each in spans} | ({_topic(gap)} if gap else set()))
        keys, arguments = list(self._hashes), []
        for topic, found in _by_topic(items).items():
            keys += (self._key(f"{kind}{topic}") for kind in ("", "ids:", "entries:"))
            arguments += [len(found), *(value for each in found for value in each)]
        for _ in range(ATTEMPTS):
            changes = self._changes(topics, spans, gap)
            # Twice as many, and what Redis may keep beyond the limit, which it cuts a piece at a time.
            first = [SCHEMA, self._kept, 2 * self._kept + 1_000, len(topics)]
            news: int = self._server.run(_WRITE, keys, [*first, *changes, *arguments])
            if news >= 0:
                return news
        raise ServerError(f"{self._server.place}: others write without a pause what is complete under {self.prefix}")

    def _changes(self, topics: Sequence[str], spans: Sequence[Span], gap: GapEvent | None) -> list[str]:
        """For each topic its name, and what is complete and what is missing of it, before and after."""
        _, coverage, gaps = self._hashes
        before, missing = self._server.hash(coverage, topics), self._server.hash(gaps, topics)
        changes = []
        for topic in topics:
            had = before.get(topic, ""), missing.get(topic, "")
            known = _Known.read(*had)
            if gap is not None and _topic(gap) == topic:
                known.tell(gap)
            for span in spans:
                if f"{span.type}:{span.symbol}" == topic:
                    known.cover(span)
            has = known.written()
            changes += [topic, had[0], has[0], had[1], has[1]]
        return changes

    def _explained(self, text: str) -> Exception | None:
        found = "keys of another kind" if "WRONGTYPE" in text else text.partition("SCHEMA ")[2]
        if not found:
            return None
        return InvalidRequestError(
            f"{self._server.place} holds under the prefix {self.prefix!r} what this version did not write "
            f"({one_line(found)}); expected {SCHEMA!r}: choose another prefix"
        )


def _topic(event: GapEvent) -> str:
    return f"{event.type.value}:{event.symbol}"


def _by_topic(items: Iterable[Any]) -> dict[str, list[tuple[str, int, int, str, bytes]]]:
    """Of each topic what the script takes: identity, time, rank, mark, data."""
    found: dict[str, list[tuple[str, int, int, str, bytes]]] = {}
    for item in items:
        identity, rank, mark = _told_apart(item)
        entry = (identity, _milliseconds(item.timestamp), rank, mark, _encode(item))
        found.setdefault(f"{type_word(item)}:{item.symbol}", []).append(entry)
    return found


def _told_apart(item: Any) -> tuple[str, int, str]:
    """What tells an item from all others; and, where a later one may take its place, its rank and what it says."""
    time = _milliseconds(item.timestamp)
    if isinstance(item, TradeData):
        # Upbit has numbered every trade so far. One without a number is told from others by all that it says.
        number = item.sequential_id
        return (str(number) if number is not None else f"{time} {item.side} {item.price} {item.volume}"), 0, ""
    if isinstance(item, CandleData):
        prices = (item.open_price, item.high_price, item.low_price, item.close_price, item.volume, item.is_closed)
        return str(time), int(item.is_closed), _mark(prices)
    if isinstance(item, OrderbookData):
        rank = 0 if item.received_at is None else _milliseconds(item.received_at)
        return f"{item.level} {time}", rank, _mark((item.asks, item.bids))
    if isinstance(item, TickerData):
        return f"{time} {item.volume_today}", 0, ""
    raise InvalidRequestError(f"{type(item).__name__} cannot be kept: expected a trade, candle, ticker or order book")


def _mark(values: object) -> str:
    return blake2b(_encode(values), digest_size=8).hexdigest()


def _milliseconds(moment: datetime) -> int:
    return to_micros(moment) // 1000
