"""Redis count: what all machines behind one address ask of a host, counted at a Redis server. Each step is one script
there, which happens as a whole.

The time is that of Redis alone: every time goes there and comes back as seconds from now, since the clock of a machine
may be wrong by an hour. A claim carries the time at which it stops to count, which its process puts off while it is
under way: one that dies leaves none for long.

Each machine is a member as long as it is heard, and is told the share with which it may go on without Redis. One that
falls silent may have lost Redis and not Upbit: for as long as it is a member all others leave its share unused.
What is found under these names and was not written by this version is refused by its name, and left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from .._concurrency import Clock
from ..errors import InvalidRequestError, ServerError
from ..limits.ban import FORGOTTEN_AFTER_SECONDS, LONGEST_BAN_SECONDS, Ban
from ..limits.count_file import LOCK_RETRY_SECONDS, PLACES
from ..limits.shared_count import ARRIVED_SECONDS, FREE, LOOK_AGAIN_SECONDS, Claim
from ..limits.window import UNDELIVERED_SECONDS
from ..models.enums import RateGroup
from ..wire.relay_keys import SCHEMA, Keys
from .scripts import BEGIN, foreign, refused
from .shared_redis import SharedRedis

LONGEST_HOLD_SECONDS: Final = UNDELIVERED_SECONDS + 10.0
# A claim whose process does not say that it is under way yet. What that had sent before it died has arrived by then.
HELD_SECONDS: Final = 4.0
MEMBER_SECONDS: Final = 120.0  # a machine that was not heard for so long takes no share
SILENT_SECONDS: Final = 2.0  # one that was not heard for so long may be sending apart from the others
MOST_MEMBERS: Final = 1_000
# For so long nobody sends once Redis was found to have forgotten everything: what had been sent has ended by then.
BEGIN_SECONDS: Final = ARRIVED_SECONDS + 0.05
SWAP_ATTEMPTS: Final = 20  # processes that hear of one ban at the same moment
AT_REDIS: Final = -1  # where a claim was counted that is in no file

Request = tuple[RateGroup, int]  # and its owner

_EGRESS: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
# In force or over, since, until, the probe, the last handshake (milliseconds of Redis), offences, whether handshakes
# are covered.
_BAN: Final = re.compile(r"([01])((?: \d{1,15}){4}) (\d{1,2}) ([01])", re.ASCII)

# A member's score is when it was heard last, in milliseconds, and behind those in three digits the share it was told,
# in thousandths of the limit.
_MEMBERS: Final = (
    BEGIN
    + """
local function are_members(key)
  local one = redis.call('ZRANGE', key, 0, 0)[1]
  return redis.call('ZCARD', key) <= tonumber(ARGV[2]) and not (one and not string.match(one, '^%x+$'))
end
-- From when on anybody may send; where that is not known any more, from `wait` milliseconds on.
local function opening(key, wait, life)
  local at = redis.call('GET', key)
  if at and not (string.match(at, '^%d+$') and redis.call('PTTL', key) > 0) then return nil, foreign(key, at) end
  at = at or text(now + wait)
  redis.call('SET', key, at, 'PX', life)
  return tonumber(at)
end
"""
)

# KEYS: members, claims, pause, ban, opening, unaware. ARGV: schema, most members, how long one may be silent, limit,
# claim, its hold, the longest, ban that is known ('' for none), ban to be written with the claim ('' for none), the
# life of a member, how long nobody sends where there is no opening any more: each member has seen one; and the member.
# Answers: what is in the way ('', 'ban', 'pause', 'full'), for how many milliseconds, now, the ban or pause.
_TAKE: Final = (
    _MEMBERS
    + """
local ban, paused = redis.call('GET', KEYS[4]) or '', redis.call('GET', KEYS[3])
if ban ~= '' and not string.match(ban, '^[01] %d+ %d+ %d+ %d+ %d+ [01]$') then return foreign(KEYS[4], ban) end
-- Ours ends by itself.
if paused and not (string.match(paused, '^%d+$') and redis.call('PTTL', KEYS[3]) > 0) then
  return foreign(KEYS[3], paused)
end
if not are_members(KEYS[1]) then return foreign(KEYS[1], 'members') end
local unaware = redis.call('GET', KEYS[6])
if unaware and not (string.match(unaware, '^%x+$') and redis.call('PTTL', KEYS[6]) > 0) then
  return foreign(KEYS[6], unaware)
end
local opens, refusal = opening(KEYS[5], ARGV[11], ARGV[10])
if refusal then return refusal end
if redis.call('ZCARD', KEYS[2]) > 1000 then return foreign(KEYS[2], 'claims') end
local claims, counted, first = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES'), 0, nil
for i = 1, #claims, 2 do
  if not string.match(claims[i], '^%x+:%d+$') then return foreign(KEYS[2], claims[i]) end
  local ends = tonumber(claims[i + 1])
  if ends > now and ends <= now + ARGV[7] then
    counted = counted + 1
    first = first or ends
  end
end

if string.sub(ban, 1, 1) == '1' and ban ~= ARGV[8] then return {'ban', 0, text(now), ban} end
if paused then return {'pause', redis.call('PTTL', KEYS[3]), text(now), paused} end
-- Not where its clock was put back.
if opens > now and opens <= now + ARGV[11] then return {'full', opens - now, text(now), ''} end
local limit, left = tonumber(ARGV[4]), tonumber(ARGV[4])
local silent = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text((now - ARGV[3]) * 1000 + 999), 'WITHSCORES')
for i = 2, #silent, 2 do
  local share = limit * (tonumber(silent[i]) % 1000) / 1000
  left = left - (share < 1 and share or math.floor(share))
  if silent[i - 1] == unaware then unaware = nil end
end
if unaware and unaware ~= ARGV[12] then left = left - math.max(1, math.floor(limit / 2)) end
if counted >= math.max(1, math.floor(left)) then return {'full', first - now, text(now), ''} end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZADD', KEYS[2], now + ARGV[6], ARGV[5])
redis.call('PEXPIRE', KEYS[2], 2 * ARGV[7])
if ARGV[9] ~= '' then redis.call('SET', KEYS[4], ARGV[9], 'KEEPTTL') end
return {'', 0, text(now), ''}
"""
)

# KEYS: members, opening, unaware, then that of each claim which is still under way. ARGV: schema, most members, member,
# its life, how long one may be silent, the share it was told, 1 where some of its processes may send apart, how long
# claims are held, how long nobody sends where there is no opening, these claims, and of each machine that it knew the
# name, when it was heard (milliseconds ago), its share.
# Answers its share, then the same of each machine that there is.
_BEAT: Final = (
    _MEMBERS
    + """
if not are_members(KEYS[1]) then return foreign(KEYS[1], 'members') end
local own, life, silence = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local function score(ago, share) return text((now - ago) * 1000 + share) end
local _, refusal = opening(KEYS[2], ARGV[9], life)
if refusal then return refusal end
for i = 4, #KEYS do redis.call('ZADD', KEYS[i], now + ARGV[8], ARGV[6 + i]) end

local before, known = redis.call('ZSCORE', KEYS[1], own), {}
if not before then
  -- Started anew, with nothing kept, or this one comes new, and knows nobody.
  for i = 7 + #KEYS, #ARGV - 1, 3 do
    redis.call('ZADD', KEYS[1], 'NX', score(math.max(0, ARGV[i + 1]), ARGV[i + 2]), ARGV[i])
    known[ARGV[i]] = true
  end
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', text((now - life) * 1000))

local members, others, heard, left = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'), {}, 0, 1000
local stranger
for i = 1, #members, 2 do
  if members[i] ~= own then
    local at = tonumber(members[i + 1])
    local ago, share = now - math.floor(at / 1000), at % 1000
    for _, each in ipairs({members[i], ago, share}) do others[#others + 1] = each end
    if ago >= silence then
      left = left - share
    else
      heard = heard + 1
      if not known[members[i]] then stranger = members[i] end
    end
  end
end
-- Who was alone goes on with its half at once should it lose Redis now: it has not heard of this one yet.
if not before and heard == 1 and stranger then redis.call('SET', KEYS[3], stranger, 'PX', silence) end

local told, share, ago = tonumber(ARGV[6]), nil, 0
if ARGV[7] == '1' then
  -- Not heard: the others leave its share unused, and it stays what it is.
  share, ago = before and tonumber(before) % 1000 or told, silence
  told = share
else
  -- Of what the silent leave as much as each other that is heard, and as one that comes new.
  share = math.max(1, math.floor(left / (heard + 2)))
end
redis.call('ZADD', KEYS[1], score(ago, math.max(told, share)), own)
redis.call('PEXPIRE', KEYS[1], life)
return {share, unpack(others)}
"""
)

# KEYS: members. ARGV: schema, member.
_LEAVE: Final = BEGIN + "return redis.call('ZREM', KEYS[1], ARGV[2])"

# KEYS: claims. ARGV: schema, claim, milliseconds for which it counts on, or -1: it was never sent; the longest hold.
# One that was sent while Redis was away is counted from now on.
_SETTLE: Final = (
    BEGIN
    + """
if tonumber(ARGV[3]) < 0 then return redis.call('ZREM', KEYS[1], ARGV[2]) end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[2])
redis.call('PEXPIRE', KEYS[1], 2 * ARGV[4])
"""
)

# KEYS: claims. ARGV: schema, the longest hold, claim. How many count, and whether that one does.
_COUNTED: Final = (
    BEGIN
    + """
local ends = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[3]) or '0')
local counted = redis.call('ZCOUNT', KEYS[1], '(' .. text(now), now + ARGV[2])
return {counted, ends > now and 1 or 0}
"""
)

# KEYS: pause. ARGV: schema, milliseconds. What names the pause.
_PAUSE: Final = (
    BEGIN
    + """
local before = redis.call('GET', KEYS[1])
if before and not string.match(before, '^%d+$') then return foreign(KEYS[1], before) end
local left = math.max(tonumber(ARGV[2]), redis.call('PTTL', KEYS[1]))
redis.call('SET', KEYS[1], text(now), 'PX', text(left))
return text(now)
"""
)

# KEYS: ban. ARGV: schema, ban that was read ('' for none), the new one, milliseconds to keep it.
_SWAP: Final = (
    BEGIN
    + """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
return 1
"""
)


# That a machine may send without Redis, in thousandths of the limit.
Share = Annotated[int, msgspec.Meta(ge=1, le=1_000)]


class Machine(NamedTuple):
    """What is known of one that shares the count."""

    heard_at: float  # monotonic, of who knows it
    share: Share


class Company(NamedTuple):
    """The share of this machine, and who else there is, by their names."""

    share: Share
    others: Mapping[bytes, Machine]


class RedisCount:
    """The count of `host`, for all who call their address `egress`. Usable from any thread.

    `member` names this machine, `process` this process, both in hexadecimal digits. Raises InvalidRequestError where
    the URL, prefix or `egress` is none, or where what is found there is not ours; NetworkError, AuthenticationError
    and ServerError as Redis fails.
    """

    def __init__(
        self, url: str, prefix: str, egress: str, host: str, *, member: str, process: str, clock: Clock
    ) -> None:
        self._keys = Keys(prefix)
        check_egress(egress)
        self._redis = SharedRedis(url, self._keys, self._explained, what="limits", clock=clock)
        self.place: Final = self._redis.place
        self._egress = egress
        self._host = host
        self._member = member
        self._process = process
        self._now = clock.monotonic
        self._has_seen_ban = False

    # --- requests -----------------------------------------------------------------------------------------------

    def take(self, group: RateGroup, limit: int, owner: int) -> Claim:
        """As the file's count does; waits for Redis alone."""
        if limit > PLACES:
            return FREE
        before, after = "", ""
        kinds = ("pause", group), ("ban", None), ("opening", None), ("unaware", None)
        keys = [self._key("members"), self._key("claims", group), *(self._key(*kind) for kind in kinds)]
        begin = _ms(MEMBER_SECONDS), _ms(BEGIN_SECONDS)
        claim = [self._claim(owner), _ms(HELD_SECONDS), _ms(LONGEST_HOLD_SECONDS)]
        while True:
            arguments = [MOST_MEMBERS, _ms(SILENT_SECONDS), limit, *claim, before, after, *begin, self._member]
            what, wait, at, said = self._run(_TAKE, keys, arguments)
            if what != b"ban":
                return self._claimed(what, wait / 1000, said)
            ban, now = self._read_ban(said), int(at) / 1000
            self._has_seen_ban = not ban.is_proven_over
            if left := ban.remaining(now):
                return Claim(left, ban=self._here(ban, now))
            if not ban.admits(now):
                return Claim(LOOK_AGAIN_SECONDS)  # another process asks first whether it is over
            before, after = said.decode(), _written(ban.sending(now))

    def _claimed(self, what: bytes, wait: float, said: bytes) -> Claim:
        if what == b"pause":
            return Claim(max(LOCK_RETRY_SECONDS, wait), penalised=int(said))
        if what == b"full":
            # A request under way may be settled any moment.
            return Claim(min(max(LOCK_RETRY_SECONDS, wait), LOOK_AGAIN_SECONDS))
        return Claim(0.0, at=AT_REDIS)

    def beat(
        self,
        company: Company,
        under_way: Sequence[Request] = (),
        *,
        is_apart: bool = False,
        is_known: bool = False,
    ) -> Company:
        """This machine is there, with those as it heard last, and those requests go on to count. While some of its
        processes may send apart it is taken for silent all the same. `is_known`: Redis has heard of it before, so that
        one which has not has forgotten what was sent a moment ago."""
        keys = [self._key(kind) for kind in ("members", "opening", "unaware")]
        keys += [self._key("claims", group) for group, _ in under_way]
        arguments: list[Any] = [MOST_MEMBERS, self._member, _ms(MEMBER_SECONDS), _ms(SILENT_SECONDS), company.share]
        arguments += [int(is_apart), _ms(HELD_SECONDS), _ms(BEGIN_SECONDS) if is_known else 0]
        arguments += [self._claim(owner) for _, owner in under_way]
        asked_at = self._now()
        for name, machine in company.others.items():
            arguments += [name, _ms(asked_at - machine.heard_at), machine.share]
        share, *others = self._run(_BEAT, keys, arguments)
        told = zip(others[::3], others[1::3], others[2::3], strict=True)
        return Company(share, {name: Machine(asked_at - ago / 1000, share) for name, ago, share in told})

    def leave(self) -> None:
        """This machine asks nothing more: it needs no share."""
        self._run(_LEAVE, [self._key("members")], [self._member])

    def settle(self, group: RateGroup, owner: int, free_at: float | None) -> None:
        """The request of `owner` counts until `free_at` (monotonic, of this machine); None: it was never sent."""
        left = -1 if free_at is None else max(0, _ms(min(free_at - self._now(), LONGEST_HOLD_SECONDS)))
        self._run(_SETTLE, [self._key("claims", group)], [self._claim(owner), left, _ms(LONGEST_HOLD_SECONDS)])
        if free_at is None and self._has_seen_ban:
            self._change_ban(Ban.withdrawn)

    def holds(self, group: RateGroup, owner: int) -> bool:
        """Whether the request of `owner` still counts."""
        return bool(self._counted(group, owner)[1])

    def counted(self, group: RateGroup) -> int:
        """Requests of all machines that count at present."""
        return int(self._counted(group, 0)[0])

    def _counted(self, group: RateGroup, owner: int) -> Sequence[int]:
        arguments = [_ms(LONGEST_HOLD_SECONDS), self._claim(owner)]
        found: Sequence[int] = self._run(_COUNTED, [self._key("claims", group)], arguments)
        return found

    def pause(self, group: RateGroup, seconds: float) -> float:
        """Nobody sends to `group` for so long, because of a 429. What names it to the others."""
        return float(int(self._run(_PAUSE, [self._key("pause", group)], [max(1, _ms(seconds))])))

    # --- bans ---------------------------------------------------------------------------------------------------

    def impose_ban(self, seconds: float | None, sent_at: float | None, *, at_connect: bool) -> Ban:
        """As `Ban.imposed`, for all."""
        ago = 0.0 if sent_at is None else self._now() - sent_at
        return self._change_ban(lambda ban, now: ban.imposed(seconds, now - ago, now, at_connect=at_connect))

    def passed(self, sent_at: float) -> None:
        """As `Ban.passed`; costs nothing where no ban was seen."""
        if self._has_seen_ban:
            ago = self._now() - sent_at
            self._change_ban(lambda ban, now: ban.passed(now - ago))

    def connecting(self) -> Ban:
        """Before a line that broke tries a handshake: the ban, in which the attempt is noted where it may be made."""
        found: list[Ban] = []

        def noted(ban: Ban, now: float) -> Ban:
            found.append(self._here(ban, now))
            return ban.connecting(now) if ban.remaining(now) and not ban.connect_wait(now) else ban

        self._change_ban(noted)
        return found[-1]

    def _change_ban(self, change: Callable[[Ban, float], Ban]) -> Ban:
        """Decided here, as everywhere, and written if nobody else has written meanwhile."""
        key = self._key("ban")
        for _ in range(SWAP_ATTEMPTS):
            schema, text, (seconds, micros) = self._redis.ask([("GET", self._keys.schema), ("GET", key), ("TIME",)])
            if schema not in (None, SCHEMA.encode()):
                raise foreign(self.place, self._keys.schema, schema.decode("utf-8", "replace"))
            now = int(seconds) + int(micros) / 1e6
            before = Ban() if text is None else self._read_ban(text)
            after = change(before, now)
            kept = max(0.0, after.until - now) + FORGOTTEN_AFTER_SECONDS
            has_changed = after != before
            if not has_changed or self._run(_SWAP, [key], [text or b"", _written(after), _ms(kept)]):
                self._has_seen_ban = not after.is_proven_over
                return self._here(after, now)
        raise ServerError(f"{self.place}: {key} was changed by others {SWAP_ATTEMPTS} times in a row")

    def _read_ban(self, raw: bytes) -> Ban:
        text = raw.decode("utf-8", "replace")
        found = _BAN.fullmatch(text)
        if found is None:
            raise foreign(self.place, self._key("ban"), text)
        since, until, probe, connect_at = (int(each) / 1000 for each in found[2].split())
        until = min(until, since + LONGEST_BAN_SECONDS)
        return Ban(since, until, int(found[3]), found[1] == "0", probe or None, found[4] == "1", connect_at)

    def _here(self, ban: Ban, now: float) -> Ban:
        """The same by the monotonic clock of this machine; `now` is what that of Redis shows."""
        ahead = self._now() - now
        probed = None if ban.probe_since is None else ban.probe_since + ahead
        return replace(
            ban,
            since=ban.since + ahead,
            until=ban.until + ahead,
            probe_since=probed,
            connect_at=ban.connect_at + ahead,
        )

    # --- Redis --------------------------------------------------------------------------------------------------

    def _key(self, kind: str, group: RateGroup | None = None) -> str:
        return self._keys.limits(self._egress, self._host, kind, "" if group is None else group.value)

    def _claim(self, owner: int) -> str:
        return f"{self._process}:{owner}"

    def _run(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        return self._redis.run(script, keys, arguments)

    def _explained(self, text: str) -> Exception | None:
        return refused(self.place, text, self._keys.limits(self._egress, self._host, "*"))

    def close(self) -> None:
        """Let go of the connections, until they are needed again."""
        self._redis.close(for_good=False)

    def __repr__(self) -> str:
        return f"<RedisCount {self._redis!r} {self._egress} {self._host}>"


def check_egress(egress: str) -> None:
    """InvalidRequestError where that is no name of an address."""
    if not isinstance(egress, str) or not _EGRESS.fullmatch(egress):
        raise InvalidRequestError(f"egress={egress!r}: expected 1 to 64 letters, digits or any of . _ -")


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _written(ban: Ban) -> str:
    times = (ban.since, ban.until, ban.probe_since or 0.0, ban.connect_at)
    numbers = " ".join(str(_ms(max(0.0, each))) for each in times)
    return f"{int(not ban.is_proven_over)} {numbers} {min(ban.offences, 30)} {int(ban.covers_connects)}"
