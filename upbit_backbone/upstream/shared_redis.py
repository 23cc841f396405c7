"""Shared Redis: a server at which processes keep something together, and that may be away.

Whether it is there all parts of one process know together: the first that it does not answer waits for it, a second at
most; from then on nobody does, until a thread that there is only then has found that it is back.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

from .._concurrency import Clock, Deadline, Flag, LoopThread, get_logger
from ..errors import AuthenticationError, InvalidRequestError, NetworkError, ResourceError, UpbitBackboneError, one_line
from ..wire.redis_server import RedisServer
from ..wire.relay_keys import SCHEMA, Keys

log = get_logger("upbit_backbone.upstream")

TIMEOUT_SECONDS: Final = 1.0  # of one call
LOOK_SECONDS: Final = 0.5  # from one look at a server that is away to the next
LOOK_TIMEOUT_SECONDS: Final = 0.5
REFUSED_SECONDS: Final = 3.0  # a server that is there and refuses what it is asked is asked again after this
LEAVE_SECONDS: Final = LOOK_TIMEOUT_SECONDS + 0.1  # for the thread that looks, to end
NAME: Final = "upbit-backbone"


class SharedRedis:
    """One part's way to the server at `url`. Usable from any thread.

    `explain` says what errors of the server mean, and `what` is not shared while it refuses. Raises InvalidRequestError
    where the URL is none.
    """

    def __init__(
        self, url: str, keys: Keys, explain: Callable[[str], Exception | None], *, what: str, clock: Clock
    ) -> None:
        self._server = RedisServer(url, timeout=TIMEOUT_SECONDS, name=NAME, explain=explain)
        self.place: Final = self._server.place
        self._presence = _presence_of(url)
        self._schema = keys.schema
        self._what = what
        self._now = clock.monotonic
        self._retry_at = float("-inf")
        self._is_closed = False
        self._is_told = False

    def run(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """What `script` answers, which begins as all of them do. NetworkError, at once while the server is known to be
        away, AuthenticationError and ServerError as Redis fails, or what `explain` makes of its words."""
        return self._asking(lambda: self._server.run(script, keys, [SCHEMA, *arguments, self._schema]))

    def ask(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The answers to several commands, in one round trip; raises as `run`."""
        found: list[Any] = self._asking(lambda: self._server.ask(commands))
        return found

    def run_if_there(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any | None:
        """As `run`, for who can do without: None where Redis does not answer, or this was closed."""
        if self._is_closed or self._now() < self._retry_at:
            return None
        try:
            return self.run(script, keys, arguments)
        except UpbitBackboneError as error:
            if not is_about_server(error):
                self._retry_at = self._now() + REFUSED_SECONDS
            if isinstance(error, InvalidRequestError) and not self._is_told:
                self._is_told = True
                log.warning("%s are not shared with other processes", self._what, extra={"why": one_line(error)})
            log.debug("%s: %s", self._what, one_line(error))
            return None

    def _asking(self, action: Callable[[], Any]) -> Any:
        self._presence.check(self)
        try:
            return action()
        except UpbitBackboneError as error:
            if is_about_server(error):
                self._presence.missed(error)
            raise

    def close(self, *, for_good: bool = True) -> None:
        """Let go of the connections: until they are needed again, or else what comes yet is done without Redis."""
        self._is_closed = for_good
        self._presence.leave(self)
        self._server.close()

    def __repr__(self) -> str:
        return f"<SharedRedis {self.place}{' away' if self._presence.is_away else ''}>"


class Presence:
    """Whether the server at `url` is there, for all parts of this process. Usable from any thread."""

    def __init__(self, url: str) -> None:
        self._server = RedisServer(url, timeout=LOOK_TIMEOUT_SECONDS, name=NAME)
        self._lock = threading.Lock()  # guards the two below
        self._users: weakref.WeakSet[object] = weakref.WeakSet()  # who was never closed counts while he lives
        self._trouble: str | None = None
        self._wake = Flag()
        self._watch = LoopThread(self._look, "upbit-redis", is_over=lambda: self._trouble is None or not self._users)

    @property
    def is_away(self) -> bool:
        """Whether it did not answer when it was asked last."""
        return self._trouble is not None

    def check(self, user: object) -> None:
        """NetworkError with what it failed with, while it is away; `user` would ask it."""
        if self._trouble is None and user in self._users:
            return
        with self._lock:
            self._users.add(user)
            trouble = self._trouble
        if trouble is not None:
            self._ensure_watch()
            raise NetworkError(trouble)

    def missed(self, error: UpbitBackboneError) -> None:
        """It did not answer: nobody asks it any more before it is found to be back."""
        with self._lock:
            self._wake.clear()
            self._trouble = one_line(error) if self._users else None
        self._ensure_watch()

    def _ensure_watch(self) -> None:
        try:
            self._watch.ensure()
        except ResourceError as error:  # whoever is refused next tries again
            log.warning("nobody can look whether Redis is back", extra={"why": one_line(error)})

    def _look(self) -> None:
        if self._is_back():
            with self._lock:
                self._trouble = None
        else:
            self._wake.wait(LOOK_SECONDS)

    def _is_back(self) -> bool:
        try:
            self._server.time()
        except UpbitBackboneError as error:
            log.debug("Redis is not back: %s", one_line(error))
            return False
        return True

    def leave(self, user: object) -> None:
        """`user` asks no more. Where nobody does, nobody looks any more, and nothing is known."""
        with self._lock:
            self._users.discard(user)
            is_last = not self._users
            self._trouble = None if is_last else self._trouble
        if is_last:
            self._wake.set()
            self._watch.join(Deadline.after(LEAVE_SECONDS))
            self._server.close()

    def __repr__(self) -> str:
        return f"<Presence {self._server.place} {'away' if self.is_away else 'there'}>"


def is_about_server(error: UpbitBackboneError) -> bool:
    """Whether everybody would fail with it, and not what was asked alone."""
    return isinstance(error, (NetworkError, AuthenticationError))


# By process: of a forked child's parent nobody knows in what state its locks are. No lock guards it either.
_presences: dict[tuple[int, str], Presence] = {}


def _presence_of(url: str) -> Presence:
    return _presences.setdefault((os.getpid(), url), Presence(url))
