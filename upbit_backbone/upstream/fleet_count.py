"""Fleet count: one count of what is asked of a host for all machines behind one address, at Redis; and while that is
away, a share of it for each machine. Processes of one machine count in its file always, so they know of each other
whatever becomes of Redis. In sums there are never more than the limit:

| a process is | it sends | the others, at Redis |
|---|---|---|
| together | what its file and Redis have room for | count it |
| apart, first three seconds, unless its machine was alone | nothing | notice that its machine is silent |
| apart | the share of its machine, counted in the file | leave that share unused |
| together again, for three seconds | what its file and Redis have room for | still leave that share unused |

A machine is silent at Redis as long as any of its processes is, or was a moment ago, apart; its file tells the others.
Who returns to a Redis that has forgotten everybody brings back whom he knew, silent until heard himself. What was heard
of other machines lies in the file, for all processes of this one.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import uuid
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

import msgspec

from .._concurrency import Clock, Deadline, Flag, LoopThread, get_logger
from ..errors import ResourceError, UpbitBackboneError, one_line
from ..exchange.endpoints import CONNECTS_PER_SECOND, REQUESTS_PER_SECOND
from ..limits.ban import Ban
from ..limits.count_file import PLACES, SharedCountFile
from ..limits.shared_count import ARRIVED_SECONDS, FREE, LOOK_AGAIN_SECONDS, Claim, Users
from ..models.enums import RateGroup
from .redis_count import (
    AT_REDIS,
    LONGEST_HOLD_SECONDS,
    MEMBER_SECONDS,
    SILENT_SECONDS,
    Company,
    RedisCount,
    Request,
)
from .shared_redis import LEAVE_SECONDS, is_about_server

log = get_logger("upbit_backbone.upstream")

BEAT_SECONDS: Final = 0.5  # a machine that asks nothing says so often that it is there
LONG_SECONDS: Final = 1.0  # a request that takes longer is told of by each beat
# After this the others leave a share to who fell silent, and what they had sent before that has ended. For so long they
# leave it also after the last word that somebody here is apart: what he had sent has ended as well.
APART_SECONDS: Final = SILENT_SECONDS + ARRIVED_SECONDS
REFUSED_SECONDS: Final = 10.0  # Redis that is there and refuses what it is asked is asked again after this
WHOLE: Final = 1000  # shares are thousandths of a limit
ALONE: Final = Company(WHOLE // 2, {})  # the other half is for who comes new


class Heard(NamedTuple):
    """What Redis said last; times are monotonic."""

    at: float
    company: Company
    alone_since: float | None  # there was nobody else ever since


UNHEARD: Final = Heard(float("-inf"), ALONE, None)
_ENCODE: Final = msgspec.json.encode
_DECODE: Final = msgspec.json.Decoder(Heard).decode

T = TypeVar("T")


class FleetCount:
    """As `SharedCountFile`, for all machines. Usable from any thread; OSError where the file is needed and cannot be
    had."""

    def __init__(self, host: str, clock: Clock, *, url: str, prefix: str, egress: str) -> None:
        self.users = Users()
        self._clock = clock
        self._file = SharedCountFile(host, clock)
        self._settings = (url, prefix, egress, host)
        self._redis = self._connected()
        self._lock = threading.Lock()  # guards all up to _settled; nothing is asked under it
        self._is_apart = False
        self._since = float("-inf")  # when this machine fell silent last, as far as this process knows
        self._is_member = False  # the others know of this machine
        self._heard = UNHEARD
        self._return_at = float("-inf")  # it is not looked before whether Redis is back
        self._trouble = ""
        self._is_told = False  # that we are apart, with the first request that is sent so
        self._under_way: dict[Request, float] = {}  # since when
        self._settled: dict[Request, float] = {}  # while apart: until when they count
        self._leaving = Flag()
        self._beats = self._beating()

    def _connected(self) -> RedisCount:
        url, prefix, egress, host = self._settings
        member, process = self._machine(), uuid.uuid4().hex[:16]
        return RedisCount(url, prefix, egress, host, member=member, process=process, clock=self._clock)

    def _beating(self) -> LoopThread:
        return LoopThread(self._beat, "upbit-fleet", is_over=lambda: not self.users, at_end=self._say_farewell)

    def _machine(self) -> str:
        """A name for those who share a file: they take one share between them."""
        try:
            text = self._file.identity()
        except OSError:
            text = uuid.uuid4().hex
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def trouble(self) -> str | None:
        """Why the limits are not kept together at the moment, and by what share; None if they are."""
        if not self._is_apart:
            return None
        return f"limits are kept on this machine alone, with 1/{self._shares} of them, because {self._trouble}"

    @property
    def _shares(self) -> int:
        return round(WHOLE / self._share())

    def _share(self) -> int:
        """Of this machine, while it is apart."""
        return self._known().company.share

    def _known(self) -> Heard:
        """What was heard last, by this process or another of this machine."""
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            return _DECODE(self._file.heard())
        return self._heard

    # --- requests -----------------------------------------------------------------------------------------------

    def take(self, group: RateGroup, limit: int, owner: int) -> Claim:
        """Count one more request of `owner`, where fewer than `limit` count at present; waits for Redis alone."""
        if not self.users:
            return Claim(LOOK_AGAIN_SECONDS)  # whoever asks is closed, and about to hear of it
        self._attend()
        if self._is_apart:
            self._stay_apart()
            if wait := self._standstill():
                return Claim(wait)
            self._tell()
            claim = self._file.take(group, max(1, limit * self._share() // WHOLE), owner)
        else:
            claim = self._take_together(group, limit, owner) if limit <= PLACES else FREE
        if claim.at is not None:
            with self._lock:
                self._under_way[group, owner] = self._clock.monotonic()
        return claim

    def _take_together(self, group: RateGroup, limit: int, owner: int) -> Claim:
        # First where it costs little. How long a ban or a 429 keeps everybody is said there all the same, under one
        # name for all.
        here = self._in_file(lambda: self._file.take(group, limit, owner)) or FREE
        if here.wait and here.ban is None and here.penalised is None:
            return here
        try:
            if not self._is_member:
                self._say_here()
            there = self._redis.take(group, limit, owner)
        except UpbitBackboneError as error:
            self._missed(error)
            there = Claim(max(0.001, self._standstill()))
        if there.wait:
            if here.at is not None:
                self._in_file(lambda: self._file.settle(group, owner, here.at, None))
            return there
        if here.wait:
            self._asking(lambda: self._redis.settle(group, owner, None))
            return here._replace(penalised=None)
        return there if here.at is None else here

    def _missed(self, error: UpbitBackboneError) -> None:
        """Redis did not answer."""
        with self._lock:
            now = self._clock.monotonic()
            if not self._is_apart:
                self._is_apart, self._since, self._trouble = True, now, one_line(error)
                # Should it be started anew, it has forgotten what others had sent a moment ago.
                self._return_at = now + ARRIVED_SECONDS
            if not is_about_server(error):
                self._return_at = now + REFUSED_SECONDS
        self._stay_apart()

    def _stay_apart(self) -> None:
        """The other processes of this machine hear it, and do not say that it is there."""
        with contextlib.suppress(OSError):  # then this one is a machine by itself
            since = self._file.stay_apart(APART_SECONDS)
            with self._lock:
                self._since = since

    def _standstill(self) -> float:
        """Seconds for which nothing is sent yet."""
        heard = self._known()
        with self._lock:
            # There was nobody who would have to notice: for so long that what others had sent has ended, and with no
            # time for anybody to come unheard.
            alone_since = heard.alone_since
            if alone_since is not None and alone_since + APART_SECONDS <= self._since < heard.at + SILENT_SECONDS:
                return 0.0
            return max(0.0, self._since + APART_SECONDS - self._clock.monotonic())

    def _tell(self) -> None:
        if not self._is_told:
            self._is_told = True
            log.warning("limits are not shared with other machines", extra={"why": self.trouble})

    def settle(self, group: RateGroup, owner: int, at: int | None, free_at: float | None) -> None:
        """The request of `owner`, which was counted `at`, counts until `free_at`; None: it was never sent."""
        with self._lock:
            self._under_way.pop((group, owner), None)
        self._asking(lambda: self._redis.settle(group, owner, free_at))
        with self._lock:
            if self._is_apart and free_at is not None:
                self._settled = _counting(self._settled, self._clock.monotonic())
                self._settled[group, owner] = free_at
        if at != AT_REDIS:
            ends = None if free_at is None else free_at + self._spread(group)
            self._in_file(lambda: self._file.settle(group, owner, at, ends))

    def _spread(self, group: RateGroup) -> float:
        """Seconds more for which a request counts where there are more machines than the limit has places: of the
        usual ten requests a second, nineteen machines may send one every two seconds each."""
        places = CONNECTS_PER_SECOND if group is RateGroup.WEBSOCKET_CONNECT else REQUESTS_PER_SECOND
        return max(0.0, self._shares / places - 1.0) if self._is_apart else 0.0

    def holds(self, group: RateGroup, owner: int, at: int | None) -> bool:
        """Whether the request of `owner`, not yet settled, still counts; False where it cannot be known."""
        if at != AT_REDIS and not self._file.holds(group, owner, at):
            return False
        found = self._asking(lambda: self._redis.holds(group, owner))
        return at != AT_REDIS if found is None else found

    def counted(self, group: RateGroup) -> int:
        """Requests of all that count at present."""
        counted = self._asking(lambda: self._redis.counted(group))
        return counted if counted is not None else self._file.counted(group)

    def pause(self, group: RateGroup, seconds: float) -> float:
        """Nobody sends to `group` for so long, because of a 429. The time that names it to the others."""
        told_at = self._asking(lambda: self._redis.pause(group, seconds))
        named = self._in_file(lambda: self._file.pause(group, seconds))
        return told_at or named or self._clock.monotonic()

    # --- bans: in both, so that nobody forgets one on the way from the one to the other --------------------------

    def impose_ban(self, seconds: float | None, sent_at: float | None, *, at_connect: bool) -> Ban:
        """As `Ban.imposed`, for all."""
        there = self._asking(lambda: self._redis.impose_ban(seconds, sent_at, at_connect=at_connect))
        here = self._in_file(lambda: self._file.impose_ban(seconds, sent_at, at_connect=at_connect))
        return max((each for each in (there, here) if each is not None), key=lambda ban: ban.until, default=Ban())

    def passed(self, sent_at: float) -> None:
        """As `Ban.passed`; costs nothing where no ban was seen."""
        self._asking(lambda: self._redis.passed(sent_at))
        self._in_file(lambda: self._file.passed(sent_at))

    def connecting(self) -> Ban:
        """Before a line that broke tries a handshake: the ban, in which the attempt is noted where it may be made."""
        found = self._asking(self._redis.connecting)
        return self._file.connecting() if found is None else found

    def _asking(self, action: Callable[[], T]) -> T | None:
        """What Redis answers, None where it does not, or is not asked."""
        if self._is_apart:
            return None
        try:
            return action()
        except UpbitBackboneError as error:
            self._missed(error)
            return None

    def _in_file(self, action: Callable[[], T]) -> T | None:
        """What the file's count says; without a file, OSError where it is needed, else None."""
        try:
            return action()
        except OSError:
            if self._is_apart:
                raise
            return None

    # --- on a thread of its own -----------------------------------------------------------------------------------

    def _beat(self) -> None:
        """Have the others hear that this machine is there, and what of its requests, or look whether Redis is."""
        if self._leaving.wait(BEAT_SECONDS) and not self.users:
            return
        if self._is_apart:
            self._stay_apart()
            if self._clock.monotonic() < self._return_at:
                return
        try:
            self._say_here()
        except UpbitBackboneError as error:
            log.debug("limits: %s", one_line(error))
            self._missed(error)

    def _say_here(self) -> None:
        is_apart = self._is_apart or bool(self._in_file(self._file.is_apart))
        with self._lock:
            returns, under_way = self._is_apart, dict(self._under_way)
            is_known = self._is_member
            settled = _counting(self._settled, self._clock.monotonic())
        # What was sent apart, or before by those who were still waiting for an answer, counts from now on.
        told_of = list(under_way) if returns else self._long(under_way)
        before, asked_at = self._known(), self._clock.monotonic()
        company = self._redis.beat(before.company, told_of, is_apart=is_apart, is_known=is_known)
        for (group, owner), free_at in settled.items():
            self._redis.settle(group, owner, free_at)
        is_first = before.alone_since is None or before.at + SILENT_SECONDS <= asked_at
        alone_since = None if company.others else asked_at if is_first else before.alone_since
        heard = Heard(asked_at, company, alone_since)
        with contextlib.suppress(OSError):  # then this process is a machine by itself
            self._file.keep_heard(_ENCODE(heard), MEMBER_SECONDS)
        with self._lock:
            self._heard, self._is_member = heard, True
            if returns:  # else it was lost this moment
                self._is_apart = False
                self._settled.clear()
            is_news, self._is_told = self._is_told and not is_apart, self._is_told and is_apart
        if is_news:
            log.info("limits are shared with other machines again", extra={"place": self._redis.place})

    def _long(self, under_way: dict[Request, float]) -> list[Request]:
        now = self._clock.monotonic()
        for each in [each for each, since in under_way.items() if since < now - LONGEST_HOLD_SECONDS]:
            self._under_way.pop(each, None)  # a thread has died with it
        return [each for each, since in under_way.items() if LONG_SECONDS < now - since < LONGEST_HOLD_SECONDS]

    def _say_farewell(self) -> None:
        if not self._is_apart and not self._in_file(self._file.is_apart):
            with contextlib.suppress(UpbitBackboneError):  # then the others find out
                self._redis.leave()
        if not self.users:
            self._file.close()  # was looked into once more

    def _attend(self) -> None:
        try:
            self._beats.ensure()
        except ResourceError as error:  # the next one who asks tries again
            log.warning("other machines may not know that this one is there", extra={"why": one_line(error)})

    def close(self) -> None:
        """Let go of the file and of Redis, until either is used again."""
        self._leaving.set()
        self._beats.join(Deadline.after(LEAVE_SECONDS))
        self._leaving.clear()
        self._is_member = False
        self._file.close()
        self._redis.close()

    def leave_to_parent(self) -> None:
        """In a forked child: what is the parent's stays so."""
        self._lock = threading.Lock()
        self._under_way.clear()
        self._settled.clear()
        self.users = Users()
        self._leaving = Flag()
        self._beats = self._beating()
        self._file.leave_to_parent()
        self._redis = self._connected()

    def __repr__(self) -> str:
        return f"<FleetCount {self._redis!r} {'apart' if self._is_apart else 'together'}>"


def _counting(settled: dict[Request, float], now: float) -> dict[Request, float]:
    """Those that count beyond `now`."""
    return {each: until for each, until in settled.items() if until > now}
