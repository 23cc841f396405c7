"""Shared answers: what one process has just asked Upbit others need not ask, by way of a Redis server.

Whoever asks first leaves a note under the question's name and goes to Upbit; who comes with the same question meanwhile
waits for his answer, for which no turn is taken. Only good answers are left there; who waited in vain asks for himself.
They are bytes as Upbit sent them and go through the same door as those from the wire.

How old an answer is the clock of Redis says, of which each knows what it showed between two moments of his own, before
and after it was asked. The request is taken to have left as early as they allow, on the way there and back: who is held
up on either finds an answer older than it is, never younger.

While Redis is away, the processes of one machine leave each other their answers in files. Nobody waits there for
another: each waits for a turn of the limits, which they share, and looks once more when it has come.
"""

from __future__ import annotations

import hashlib
import math
import re
import threading
import uuid
from typing import Any, Final, NamedTuple

from .._concurrency import Clock, Deadline, Waitable, wait_event
from ..exchange.endpoints import RestCall
from ..wire.relay_keys import Keys
from .answer_files import MAX_ANSWER_BYTES, AnswerFiles, FiledAnswer
from .scripts import BEGIN, refused
from .shared_redis import SharedRedis

NOTE_SECONDS: Final = 5.0  # whoever has not answered by then has died, or waits for too much
KEPT_SECONDS: Final = 1.0  # an answer, at least: for those who wait for it
UNDER_WAY_SECONDS: Final = 1.0  # what left longer ago than this before a question is no answer to it
WAITED_SHARE: Final = 0.5  # of one's time, for somebody else's answer
POLL_SECONDS: Final = 0.02
MOST_REMEMBERED: Final = 1_000
# Then when its request left (milliseconds of Redis), who asked, a line's end, and the answer's bytes.
MAGIC: Final = b"UPBITAN1"
_HEAD: Final = re.compile(rb"UPBITAN1(\d{13}) ([0-9a-f]{32})\n")
HEAD_BYTES: Final = 8 + 13 + 1 + 32 + 1

_BEGIN: Final = (
    BEGIN
    + """
local size = redis.call('STRLEN', KEYS[1])
local head = size > 0 and redis.call('GETRANGE', KEYS[1], 0, 54) or nil
if head and (size > 1048631 or not string.match(head, '^UPBITAN1%d+ %x+\\n$')) then return foreign(KEYS[1], head) end
local note = redis.call('GET', KEYS[2])
if note and not (string.match(note, '^%x+$') and #note == 32) then return foreign(KEYS[2], note) end
"""
)

# KEYS: answer, note. ARGV: schema, our name, life of the note, how old an answer may be, one that was had, whose
# note was waited for, how old his answer may be; then the key of the schema.
# Answers: what there is ('answer', 'yours', 'wait'), its age in milliseconds, it or whose note there is; now.
_ASK: Final = (
    _BEGIN
    + """
if head then
  local age, whose = now - tonumber(string.sub(head, 9, 21)), string.sub(head, 23, 54)
  local is_young = age <= tonumber(ARGV[4]) or (whose == ARGV[6] and age <= tonumber(ARGV[7]))
  if is_young and age >= 0 and whose ~= ARGV[5] then
    return {'answer', age, redis.call('GET', KEYS[1]), text(now)}
  end
end
if note then return {'wait', 0, note, text(now)} end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return {'yours', 0, '', text(now)}
"""
)

# KEYS: answer, note. ARGV: schema, our name, when the request left at the earliest, life of the answer, its bytes; then
# the key of the schema.
_TELL: Final = (
    _BEGIN
    + """
local left = math.min(now, tonumber(ARGV[3]))
redis.call('SET', KEYS[1], 'UPBITAN1' .. string.format('%013.0f', left) .. ' ' .. ARGV[2] .. '\\n' .. ARGV[5],
  'PX', ARGV[4])
if note == ARGV[2] then redis.call('DEL', KEYS[2]) end
"""
)

# KEYS: answer, note. ARGV: schema, our name; then the key of the schema.
_LEAVE: Final = _BEGIN + "if note == ARGV[2] then redis.call('DEL', KEYS[2]) end"


class SharedAnswer(NamedTuple):
    """What Upbit said to somebody whose request left at `left_at` (monotonic, of this machine) or somewhat later."""

    body: bytes
    left_at: float


class SharedAnswers:
    """The answers of one host, under `prefix` at the server at `url`. Usable from any thread; raises nothing of ours
    but InvalidRequestError where the URL or the prefix is none."""

    def __init__(self, url: str, prefix: str, host: str, *, clock: Clock) -> None:
        self._keys = Keys(prefix)
        self._redis = SharedRedis(url, self._keys, self._explained, what="answers", clock=clock)
        self._files = AnswerFiles(host, clock)
        self._host = host
        self._now = clock.monotonic
        self._lock = threading.Lock()  # guards what was had
        self._had: dict[str, str] = {}  # the last answer of each question that we got or gave

    def ask(self, call: RestCall, max_age: float, deadline: Deadline, stop: Waitable) -> Turn:
        """The answer to `call`, at most `max_age` seconds old or of somebody who asks at this very time; or the turn to
        ask Upbit. Waits for others for half of the time there is, or until `stop` is set."""
        digest = hashlib.sha256(call.target.encode()).hexdigest()[:32]
        turn = Turn(self, digest, max_age, self._now())
        waiting, began, waited_for = deadline.fraction(WAITED_SHARE), self._now(), ""
        while not stop.is_set():
            under_way = min(max_age, UNDER_WAY_SECONDS) if max_age else UNDER_WAY_SECONDS
            patience = under_way + self._now() - began
            told = [turn.name, _ms(NOTE_SECONDS), _ms(max_age), self._had.get(digest, ""), waited_for, _ms(patience)]
            before = self._now()
            found = self.run(_ASK, digest, told)
            if found is None:
                turn.look_here()
                return turn
            what, age, said, shown = found
            turn.saw_clock(int(shown) / 1000, self._now())
            if what == b"answer":
                # A millisecond more, because Redis' are whole ones.
                turn.answer = self._answer(digest, before - (int(age) + 1) / 1000, said)
                return turn
            if what == b"yours":
                turn.is_ours = True
                return turn
            whose = said.decode("ascii", "replace")
            # In vain for one is in vain for all who wait: one after the other would wait for ever.
            if (waited_for and whose != waited_for) or waiting.expired:
                return turn
            waited_for = whose
            wait_event(stop, waiting.sooner(POLL_SECONDS))
        return turn

    def _answer(self, digest: str, left_at: float, raw: bytes) -> SharedAnswer | None:
        head = _HEAD.match(raw)
        if head is None:  # the script has looked
            return None
        self.remember(digest, head[2].decode())
        return SharedAnswer(raw[head.end() :], left_at)

    def left_here(self, digest: str, max_age: float, asked_at: float) -> SharedAnswer | None:
        """What a process of this machine has been told, at most `max_age` seconds ago or since `asked_at`, and we have
        not."""
        found = self._files.read(digest)
        if found is None or found.whose == self._had.get(digest):
            return None
        if found.left_at < min(asked_at, self._now() - max_age):
            return None
        self.remember(digest, found.whose)
        return SharedAnswer(found.body, found.left_at)

    def leave_here(self, digest: str, name: str, body: bytes, left_at: float) -> None:
        """For the processes of this machine."""
        self._files.write(digest, FiledAnswer(body, left_at, name))

    def remember(self, digest: str, name: str) -> None:
        """That answer is known here: who asks again wants another."""
        with self._lock:
            if len(self._had) >= MOST_REMEMBERED:
                self._had.clear()
            self._had[digest] = name

    def run(self, script: str, digest: str, arguments: list[Any]) -> Any | None:
        """What it answers; None where Redis does not."""
        keys = [self._keys.shared(self._host, kind, digest) for kind in ("answer", "asking")]
        return self._redis.run_if_there(script, keys, arguments)

    def _explained(self, text: str) -> Exception | None:
        return refused(self._redis.place, text, self._keys.shared(self._host, "*", "*"))

    def close(self) -> None:
        """Let go of the connections; what still comes asks Upbit alone."""
        self._redis.close()

    def __repr__(self) -> str:
        return f"<SharedAnswers {self._redis!r} {self._host}>"


class Turn:
    """One question's part: the answer that there was, or the turn to ask."""

    def __init__(self, answers: SharedAnswers, digest: str, max_age: float, asked_at: float) -> None:
        self._answers = answers
        self._digest = digest
        self._max_age = max_age
        self._asked_at = asked_at
        self.name = uuid.uuid4().hex
        self.is_ours = False
        self.answer: SharedAnswer | None = None
        self._ahead: float | None = None  # the clock of Redis, of ours: as little as it may be

    def saw_clock(self, shown: float, by: float) -> None:
        """The clock of Redis showed `shown` (seconds) at `by` (monotonic) at the latest."""
        self._ahead = shown - by

    def look_here(self) -> None:
        """Where Redis was away: what another process of this machine has been told meanwhile. Costs a file's reading,
        and nothing where none was ever left."""
        # What no age is allowed differs with each who asks, and would fill the disk with what nobody wants.
        if self._ahead is None and self._max_age > 0:
            self.answer = self._answers.left_here(self._digest, self._max_age, self._asked_at)

    def tell(self, body: bytes, left_at: float) -> None:
        """Upbit has answered with `body` to a request that left at `left_at` (monotonic)."""
        if len(body) > MAX_ANSWER_BYTES:
            return
        if self._ahead is None:
            if self._max_age > 0:
                self._answers.remember(self._digest, self.name)
                self._answers.leave_here(self._digest, self.name, body, left_at)
            return
        self.is_ours = False
        self._answers.remember(self._digest, self.name)
        left = math.floor((left_at + self._ahead) * 1000)
        kept = max(KEPT_SECONDS, self._max_age)
        self._answers.run(_TELL, self._digest, [self.name, left, _ms(kept), body])

    def leave(self) -> None:
        """Nothing came of it: whoever waits need not any longer."""
        if self.is_ours:
            self.is_ours = False
            self._answers.run(_LEAVE, self._digest, [self.name])


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
