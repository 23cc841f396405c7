"""Redis store: what a relay does at its server. Every step is one script there: it happens as a whole, and only for the
relay that leads at that very moment.

The right to lead is a lease, a key that expires unless it is renewed, and carries a number that grows with each leader
(a fencing token). A relay that was stopped and wakes up after its lease writes nothing: the script that would write
looks at the lease first. By whose clock the lease runs is no question: by that of Redis alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from ..errors import InvalidRequestError
from ..models.request import Topic
from ..wire.redis_server import RedisServer, spelled
from ..wire.relay_keys import SCHEMA, Keys, topic_named
from .entries import Entry, Latest

LEASE_SECONDS: Final = 2.0
TIMEOUT_SECONDS: Final = 1.0  # of one call to Redis: a server that goes mute must not outlast the lease
EVENTS_KEPT: Final = 10_000
DEMANDED_TOPICS: Final = 5_000  # that clients may ask for besides; what is more than that waits
# The ids of a stream are remembered for longer than its entries are kept, and for longer than a relay that stands by
# remembers what it might have to publish.
IDS_FOR_ENTRY: Final = 2
# Redis reads no MessagePack of bytes: JSON is text anyway.
_pack: Final = msgspec.msgpack.Encoder().encode

# KEYS: schema, leader, fence, status, events, pulse. ARGV: schema, name, token that we hold or 0, lease in ms, what the
# heartbeat tells those who listen, and what the status says: field, value, …
_LEAD: Final = """
local found = redis.call('GET', KEYS[1])
if found and found ~= ARGV[1] then return redis.error_reply('SCHEMA ' .. found) end
local now = redis.call('TIME')
local held = redis.call('GET', KEYS[2])
local token = ARGV[3]
local is_new = held == false
if held == false then
  for i, kind in ipairs({'string', 'string', 'string', 'hash', 'stream'}) do
    local there = redis.call('TYPE', KEYS[i]).ok
    if there ~= 'none' and there ~= kind then return redis.error_reply('SCHEMA ' .. KEYS[i] .. ' as ' .. there) end
  end
  if not found then redis.call('SET', KEYS[1], ARGV[1]) end
  -- By the time, so that it grows also where Redis has lost what it knew.
  local last = tonumber(redis.call('GET', KEYS[3]) or '0')
  local stamp = now[1] * 1000 + math.floor(now[2] / 1000)
  if stamp <= last then stamp = last + 1 end
  token = string.format('%.0f', stamp)
  redis.call('SET', KEYS[3], token)
elseif held ~= token .. ' ' .. ARGV[2] then
  return {0, held}
end
redis.call('SET', KEYS[2], token .. ' ' .. ARGV[2], 'PX', ARGV[4])
redis.call('HSET', KEYS[4], 'relay', ARGV[2], 'token', token,
  'heartbeat', string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000)), unpack(ARGV, 6))
-- Who has just begun to lead tells nobody before what it has is published.
if not is_new and ARGV[5] ~= '' then redis.call('PUBLISH', KEYS[6], token .. ' ' .. ARGV[5]) end
return {tonumber(token), ''}
"""

# Data come as one argument in MessagePack: taking a dozen arguments apart for each of thousands of trades a second, on
# either side, takes longer than all that is done with them.
# KEYS: leader, then hash and channel of each topic. ARGV: lease, then data in MessagePack: for each the place of its
# topic among them (from 0), data, source, time, received_at, epoch, frame.
_LATEST: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return redis.error_reply('FENCED') end
for _, item in ipairs(cmsgpack.unpack(ARGV[2])) do
  local hash, channel = KEYS[item[1] * 2 + 2], KEYS[item[1] * 2 + 3]
  local known = tonumber(redis.call('HGET', hash, 'exchange_time') or '0') or 0
  -- After a change of leaders the new one may be a moment behind what the old one had.
  local is_newest = tonumber(item[4]) >= known
  if is_newest then
    redis.call('HSET', hash, 'data', item[2], 'source', item[3], 'exchange_time', item[4],
      'received_at', item[5], 'epoch', item[6], 'frame', item[7])
  end
  -- A candle that is over may still be corrected, after the next has begun.
  if is_newest or string.find(hash, ':candle', 1, true) then redis.call('PUBLISH', channel, item[7]) end
end
"""

# KEYS: leader, then stream, ids and channel of each topic. ARGV: lease, entries kept, ids kept, then entries in
# MessagePack: for each the place of its topic among them (from 0), identity, time, frame, and a fifth thing where the
# channel has had it.
_ENTRIES: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return redis.error_reply('FENCED') end
local added = 0
for _, item in ipairs(cmsgpack.unpack(ARGV[4])) do
  local at = item[1] * 3 + 2
  if redis.call('ZADD', KEYS[at + 1], 'NX', item[3], item[2]) == 1 then
    redis.call('XADD', KEYS[at], 'MAXLEN', '~', ARGV[2], '*', 'id', item[2], 'data', item[4])
    redis.call('ZREMRANGEBYRANK', KEYS[at + 1], 0, -(ARGV[3] + 1))
    if not item[5] then redis.call('PUBLISH', KEYS[at + 2], item[4]) end
    added = added + 1
  end
end
return added
"""

# KEYS: leader, events. ARGV: lease, entries kept, then kind and data.
_EVENTS: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return redis.error_reply('FENCED') end
for i = 3, #ARGV, 2 do
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'kind', ARGV[i], 'data', ARGV[i + 1])
end
return (#ARGV - 2) / 2
"""

# KEYS: demand. ARGV: how many at most.
_DEMAND: Final = """
local now = redis.call('TIME')
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now[1] * 1000 + math.floor(now[2] / 1000))
return redis.call('ZRANGE', KEYS[1], 0, ARGV[1] - 1)
"""

# KEYS: seen. ARGV: what was, for how long it is kept (milliseconds).
_SEEN: Final = """
local there = redis.call('TYPE', KEYS[1]).ok
if there ~= 'none' and there ~= 'string' then return redis.error_reply('SCHEMA ' .. KEYS[1] .. ' as ' .. there) end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
"""

_LEAVE: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class Lease(NamedTuple):
    """The right to publish: which relay has it, under which number."""

    token: int
    relay: str

    def __str__(self) -> str:
        return f"{self.token} {self.relay}"


class NotLeadingError(Exception):
    """Another relay leads by now: nothing was written."""


class RedisStore:
    """What one relay publishes under `keys` of the server at `url`, as long as it leads. For one thread at a time.

    Raises InvalidRequestError where the URL is none, or the prefix holds what is not ours (nothing is overwritten);
    NetworkError, AuthenticationError and ServerError as Redis fails. No text of them holds the password.
    """

    def __init__(self, url: str, keys: Keys, kept: int) -> None:
        self._keys = keys
        self._kept = kept
        self._server = RedisServer(url, timeout=TIMEOUT_SECONDS, name="upbit-backbone-relay", explain=self._explained)
        self._line = self._server.line()
        self._names: dict[Topic, tuple[bytes, ...]] = {}  # of states and of entries, in the order that scripts know
        self._spelled: dict[Topic, bytes] = {}  # those of entries
        self._leader = spelled(keys.leader)
        self._spelled_for: Lease | None = None
        self._bounds = b""  # what comes before the entries, under that lease
        self.place = self._server.place

    def lead(self, name: str, held: Lease | None, told: str, status: Sequence[str | int]) -> Lease | None:
        """Take the lease or renew it, say how things stand (`status`: field, value, …) and tell it to those who listen
        (`told`, if anything), but for the first time; None: another leads."""
        each = self._keys
        keys = [each.schema, each.leader, each.fence, each.status, each.events, each.pulse]
        mine = 0 if held is None else held.token
        token, _ = self._run(_LEAD, keys, [SCHEMA, name, mine, round(LEASE_SECONDS * 1000), told, *status])
        return Lease(token, name) if token else None

    def publish_latest(self, lease: Lease, values: Sequence[Latest]) -> None:
        """Into the hashes of their topics, and to who listens; what is older than what is there changes nothing."""
        places, keys = self._placed(values)
        items = [
            (
                places[each.topic],
                each.data.decode(),
                each.source,
                str(each.time),
                str(each.received_at),
                str(each.epoch),
                each.frame.decode(),
            )
            for each in values
        ]
        self._run(_LATEST, keys, [str(lease), _pack(items)])

    def publish_entries(self, lease: Lease, entries: Sequence[Entry]) -> int:
        """Into the streams of their topics, and to who listens, each identity once. How many were not there yet."""
        self.send_entries(lease, entries)
        return self.added()

    def send_entries(self, lease: Lease, entries: Sequence[Entry]) -> None:
        """As `publish_entries`, whose answer `added` gives: to be asked for before anything else."""
        places: dict[Topic, int] = {}
        keys: list[bytes] = []
        items: list[tuple[object, ...]] = []
        # In one sweep: thousands a second come through here.
        for entry in entries:
            topic = entry.topic
            place = places.get(topic)
            if place is None:
                place = places[topic] = len(places)
                keys.append(self._spelled.get(topic) or self._spell(topic))
            # Numbers as text: to Lua they are floats, which know no sixteen digits.
            item = place, entry.identity, str(entry.time), entry.frame.decode()
            items.append(item if entry.is_told else (*item, 1))
        count = 1 + 3 * len(places)
        if lease != self._spelled_for:
            self._spelled_for = lease
            self._bounds = spelled(str(lease), self._kept, self._kept * IDS_FOR_ENTRY)
        words = spelled(count), self._leader, *keys, self._bounds, spelled(_pack(items))
        self._line.send(_ENTRIES, count + 4, b"".join(words))

    def _spell(self, topic: Topic) -> bytes:
        """The keys of a topic's entries, as they stand in a command."""
        keys = self._spelled[topic] = spelled(*self._names_of(topic)[2:5])
        return keys

    def added(self) -> int:
        """How many of the entries that were sent were not there yet; raises as whatever is published does."""
        return self._line.number()

    def unwritten(self, topics: Iterable[Topic]) -> set[Topic]:
        """Those of `topics` that have no stream there."""
        asked = sorted(topics)
        found = self._server.ask([("EXISTS", self._keys.stream(topic)) for topic in asked])
        return {topic for topic, there in zip(asked, found, strict=True) if not there}

    def _placed(self, items: Iterable[Latest]) -> tuple[dict[Topic, int], list[Any]]:
        """Where each topic stands among them, and the keys: the leader's, then the two of each."""
        places: dict[Topic, int] = {}
        keys: list[Any] = [self._keys.leader]
        for item in items:
            topic = item.topic
            if topic not in places:
                places[topic] = len(places)
                keys += self._names_of(topic)[:2]
        return places, keys

    def _names_of(self, topic: Topic) -> tuple[bytes, ...]:
        """As bytes and kept: to make them for each batch took as long as all else that is done with a trade."""
        names = self._names.get(topic)
        if names is None:
            each = self._keys
            makers = each.latest, each.live, each.stream, each.published, each.live
            names = self._names[topic] = tuple(make(topic).encode() for make in makers)
        return names

    def publish_events(self, lease: Lease, events: Sequence[tuple[str, str]]) -> None:
        """Into the stream of events: their kinds, and what they say."""
        fields = (field for each in events for field in each)
        self._run(_EVENTS, [self._keys.leader, self._keys.events], [str(lease), EVENTS_KEPT, *fields])

    def demanded(self) -> list[Topic]:
        """What clients ask for, in their order of asking; names of no topic are passed over."""
        names: list[bytes] = self._run(_DEMAND, [self._keys.demand], [DEMANDED_TOPICS])
        found = (topic_named(name.decode("ascii", "replace")) for name in names)
        return [topic for topic in found if topic is not None]

    def tell_seen(self, text: bytes, seconds: float, *, leads: bool) -> None:
        """What this relay has seen, for others to compare with what they have, for so many seconds."""
        key = self._keys.seen if leads else self._keys.seen_by_others
        self._run(_SEEN, [key], [text, round(seconds * 1000)])

    def seen(self, *, leads: bool) -> bytes | None:
        """What others have seen: those that stand by for the one that leads, and the one that leads for those. From any
        thread."""
        (text,) = self._server.ask([("GET", self._keys.seen_by_others if leads else self._keys.seen)])
        return text if isinstance(text, bytes) else None

    def leave(self, lease: Lease) -> None:
        """Give the lease back, so that another relay leads at once."""
        self._run(_LEAVE, [self._keys.leader], [str(lease)])

    def close(self) -> None:
        self._line.close()
        self._server.close()

    def _run(self, script: str, keys: list[Any], arguments: list[Any]) -> Any:
        return self._line.run(script, keys, arguments)

    def _explained(self, text: str) -> Exception | None:
        if "FENCED" in text:
            return NotLeadingError()
        if "SCHEMA " in text:
            return self._foreign(text.partition("SCHEMA ")[2])
        return self._foreign("keys of another kind") if "WRONGTYPE" in text else None

    def _foreign(self, found: str) -> InvalidRequestError:
        return InvalidRequestError(
            f"{self.place} holds under the prefix {self._keys.prefix!r} what this version did not write ({found}); "
            f"expected {SCHEMA!r}: choose another prefix"
        )

    def __repr__(self) -> str:
        return f"<RedisStore {self.place} {self._keys.prefix}>"
