"""Session manager: the whole program's WebSocket life cycle behind two verbs, `acquire` and `release`.

Subscribing edits a request; sessions make it true. The lock is held for counting only; sessions are created
outside the hot path, woken after it is released, and fetch their requests themselves, so that the newest set wins
whatever order threads arrive in.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._concurrency import Clock, Deadline, join_all
from .._lazy import loading
from ..config import BackboneConfig
from ..errors import ClosedError, InvalidRequestError, NetworkError, RateLimitError
from ..models.events import ConnectionState
from ..models.request import SubscriptionRequest, Topic
from ..models.session import SessionHealth
from .connection_pool import ConnectionPool
from .gathering import Gathering
from .ports import Collaborators, Dial, Emit, FrameSink, Malformed, Probe, RunJob, SilentTopics, TurnToConnect
from .reconnect_policy import Random
from .subscription_plan import Change, Registry

if TYPE_CHECKING:
    from ..models.report import SessionStats
    from .session import Session

GENTLE_PART: Final = 0.5  # of close()'s time, before connections are cut under threads that do not stop


def _tell_nobody(_: RateLimitError) -> None:
    """Refusals concern only ourselves where no limiter is shared."""


def _nobody_counts(_: str) -> int:
    return 0


class Upkeep(NamedTuple):
    """What one round of upkeep found and did, by the sessions' names."""

    alive: tuple[str, ...]  # connected, or on their way to be
    woken: tuple[str, ...]  # told to look at what is wanted, because they were not connected although something is
    closed: tuple[str, ...]  # ended, because nobody wants anything of them


class SessionManager:
    """Keeps everything streaming that anybody wants. Thread-safe; nothing here blocks but `close`."""

    def __init__(
        self,
        config: BackboneConfig,
        *,
        clock: Clock,
        rng: Random,
        dial: Dial,
        sink: FrameSink,
        emit: Emit,
        turn_to_connect: TurnToConnect,
        probe: Probe,
        run_job: RunJob,
        refused: Callable[[RateLimitError], None] = _tell_nobody,
        silent_topics: SilentTopics | None = None,
        malformed: Malformed = _nobody_counts,
        on_late: Callable[[frozenset[Topic]], object] = lambda topics: None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._rng = rng
        self._on_late = on_late
        self._with = Collaborators(
            clock=clock,
            dial=dial,
            sink=sink,
            emit=emit,
            turn_to_connect=turn_to_connect,
            refused=refused,
            probe=probe,
            run_job=run_job,
            silent_topics=silent_topics,
            malformed=malformed,
            connect_seconds=config.connect_timeout_seconds,
            gathering=Gathering(config.gather_seconds),
        )
        self._epochs = itertools.count(1)
        self._names = itertools.count(1)
        # Guards the registry, the pool, _retired and _is_closed. Under it only counting is done and, rarely, a
        # thread is started; no socket is touched and nobody is called back.
        self._lock = threading.Lock()
        self._registry = Registry()
        self._pool: ConnectionPool[Session] = ConnectionPool(
            max_connections=config.max_connections,
            max_topics_per_connection=config.max_topics_per_connection,
        )
        self._retired: list[Session] = []
        self._is_closed = False
        self._is_settled = True  # whether the pool's places agree with the registry
        # Read without the lock, on every live answer; each change is one dict operation.
        self._health_of: dict[Topic, SessionHealth] = {}

    def acquire(self, owner: Hashable, requests: Iterable[SubscriptionRequest]) -> None:
        """Stream these, too, and nothing else for `owner`, until `release(owner)`.

        Returns at once. SubscriptionError if they do not fit on the connections allowed, ClosedError after close();
        nothing has changed then, and neither if Ctrl-C came.
        """
        # Loaded by who streams, and not by who only asks; before the lock is taken, which others wait for.
        with loading():
            from . import lifecycle, session  # noqa: F401

        requested = tuple(requests)
        before = self._registry.of(owner)
        try:
            with self._lock:
                self._check_open()
                self._settle()
                # Before the registry is touched, so that a refusal leaves nothing to undo.
                self._pool.check_room(self._registry.added_by(requested))
                touched = self._changed(self._registry.acquire, owner, requested)
        except BaseException:
            # BaseException: Ctrl-C lands in the thread that subscribes. A stream without an owner would go on until the
            # end of the program.
            self._undo(owner, before)
            raise
        # Outside the lock: waking writes to a socket, and the sessions ask for their requests under this very lock.
        _wake(touched)

    def release(self, owner: Hashable) -> None:
        """`owner` wants nothing any more; nothing happens if it did not. Whatever interrupts it, it is done."""
        try:
            with self._lock:
                if self._is_closed:
                    return
                self._settle()
                touched = self._changed(self._registry.release, owner)
        except BaseException:
            self._undo(owner, ())
            raise
        _wake(touched)

    def _undo(self, owner: Hashable, requests: tuple[SubscriptionRequest, ...]) -> None:
        """An exception came from somewhere, and `owner` is to want `requests`: as before, or nothing."""
        with self._lock:
            self._is_settled = False
            self._registry.acquire(owner, requests)
            self._settle()
            touched = self._pool.carriers()
        _wake(touched)

    def _changed(self, change: Callable[..., Change], *request: Any) -> set[Session]:
        """Make a change of the registry and what follows from it; the sessions that have to send something."""
        # Before the first change and True again after the last: whatever breaks off in between is found by whoever has
        # the lock next.
        self._is_settled = False
        changed = change(*request)
        touched = {self._place(topic) for topic in sorted(changed.added)} | self._pool.release(changed.removed)
        for topic in changed.removed:
            self._health_of.pop(topic, None)
        touched |= {self._pool.home(topic) for topic in changed.deepened}
        # Noted under the lock, woken outside it: should the wake-up never come, the session looks within two seconds.
        for each in touched:
            each.note_change()
        self._is_settled = True
        return touched

    def _settle(self) -> None:
        """Where a change was broken off, make the places of the topics agree with what is wanted."""
        if self._is_settled or self._is_closed:
            return
        wanted, placed = self._registry.topics(), self._pool.homes().keys()
        self._pool.release(placed - wanted)
        for topic in sorted(wanted - placed):
            self._place(topic)
        self._health_of = {topic: home.health for topic, home in self._pool.homes().items()}
        for each in self._pool.carriers():
            each.note_change()
        self._is_settled = True

    def _place(self, topic: Topic) -> Session:
        session = self._pool.place(topic)
        while session is None:
            self._add_session()
            session = self._pool.place(topic)
        self._health_of[topic] = session.health
        return session

    def _add_session(self) -> Session:
        with loading():
            from .lifecycle import Lifecycle
            from .session import Session

        lifecycle = Lifecycle(
            f"session-{next(self._names)}",
            self._config,
            random=self._rng,
            wall=self._clock.wall,
            next_epoch=self._epochs.__next__,
        )
        session = Session(lifecycle, self._with, requests=self._requests_of, retire=self._retire, shed=self._shed)
        # First into the pool: should Ctrl-C come while its thread starts, close() must know of it.
        self._pool.add(session)
        try:
            session.start()
        except NetworkError:
            self._pool.remove(session)
            raise
        return session

    def _requests_of(self, session: Session) -> frozenset[SubscriptionRequest]:
        with self._lock:
            # Asked by the session itself, when it is about to send: a set handed over earlier might be overtaken by a
            # newer one.
            self._settle()
            return frozenset(map(self._registry.request, self._pool.carried(session)))

    def _retire(self, session: Session) -> bool:
        """Whether an idle session may end; not if somebody has requested for something meanwhile."""
        with self._lock:
            self._settle()
            if self._is_closed or session not in self._pool:
                return True
            # Somebody may have subscribed between the session's decision and this lock; then it goes on instead of
            # taking the topic with it.
            if self._pool.carried(session):
                return False
            self._pool.remove(session)
            self._retired = [*filter(_is_alive, self._retired), session]
            return True

    def _shed(self, session: Session) -> None:
        """A session's line brings too late what it carries: what nobody needs is not subscribed any more, and another
        connection takes half of the rest, where there is one with room or may be a further one."""
        with self._lock:
            carried = self._pool.carried(session)
        # Outside the lock: it takes one of its own, and two are never held at a time.
        self._on_late(carried)  # takes back, on a thread of its own, what only we wanted
        with self._lock:
            # The world may have changed meanwhile: all is looked at again.
            self._settle()
            if self._is_closed or session not in self._pool:
                return
            half = self._pool.half(session)
            other = self._pool.lightest(session, len(half))
            if not half or (other is None and not self._pool.may_grow):
                return
            try:
                other = other or self._add_session()
            except NetworkError:
                return  # no thread to be had: the session reconnects, should it stay late
            self._pool.move(half, other)
            self._health_of.update(dict.fromkeys(half, other.health))
        _wake([session, other])

    def health(self, topic: Topic) -> SessionHealth | None:
        """The sign of life of the session that streams `topic`; None if nobody wants it."""
        return self._health_of.get(topic)

    def topics(self) -> frozenset[Topic]:
        """Everything that is wanted now."""
        with self._lock:
            return self._registry.topics()

    def states(self) -> dict[str, ConnectionState]:
        """What each session is doing, by its name; much cheaper than `stats`."""
        return {session.name: session.state for session in self._tended()}

    def stats(self) -> list[SessionStats]:
        """Each session with its line, its counters and its ages."""
        return [session.stats() for session in self._tended()]

    def reconnect(self, session: str | None = None, reason: str = "asked to reconnect") -> None:
        """Have one session, or all, drop its line and connect anew; paced by the retry policy like any break."""
        from . import messages as on

        for each in self._sessions():
            if session is None or each.name == session:
                each.command(on.ReconnectRequested(reason))

    def initialize(self) -> dict[str, ConnectionState]:
        """Connect now what will be needed; what each session is doing, by its name. Returns at once.

        The parts that streaming needs are loaded, so that the first subscription does not wait for them, and
        sessions that stand between two attempts try again now (a ban is kept). ClosedError after close().
        """
        with loading():
            from . import lifecycle, session  # noqa: F401
        from . import messages as on

        with self._lock:
            self._check_open()
        for each in self._sessions():
            each.command(on.RetryRequested())
        return self.states()

    def maintain_connections(self) -> Upkeep:
        """One round of upkeep: who is alive, who was woken, who was closed as idle. Never blocks; ClosedError after
        close().

        Sessions look after themselves; this is for whoever wants to see it done, or to save an idle connection at once
        rather than after its usual pause.
        """
        with self._lock:
            self._check_open()
            self._settle()
            sessions = self._pool.carriers()
            idle = self._pool.idle()
            self._pool.cleanup_idle_connections()
            self._retired = [*filter(_is_alive, self._retired), *idle]
        for session in idle:
            session.stop()
        wanted = [session for session in sessions if session not in idle]
        asleep = [session for session in wanted if session.state is ConnectionState.IDLE or not _is_alive(session)]
        _wake(asleep)
        return Upkeep(
            alive=tuple(session.name for session in wanted if session not in asleep),
            woken=tuple(session.name for session in asleep),
            closed=tuple(session.name for session in idle),
        )

    def handle_disconnection(self, connection: Session | str) -> None:
        """Give a connection (a session, or its name) up: it reconnects, paced by its policy, and restores everything
        it carried. Returns at once. InvalidRequestError for one that is not ours.
        """
        name = connection if isinstance(connection, str) else connection.name
        names = [session.name for session in self._sessions()]
        if name not in names:
            expected = f"one of {', '.join(names)}" if names else "none: no connection is open"
            raise InvalidRequestError(f"connection {name!r}: expected {expected}")
        self.reconnect(name, "its owner gave the connection up")

    def ban(self, seconds: float, reason: str) -> None:
        """Upbit blocks this IP for so long: no session connects or sends a message before that."""
        from . import messages as on

        for each in self._sessions():
            each.command(on.BanImposed(seconds, reason))

    def close(self, deadline: Deadline) -> list[str]:
        """End all sessions by `deadline`; the names of threads that would not stop. Idempotent, from any thread."""
        with self._lock:
            self._is_closed = True
            self._health_of = {}
            sessions = [*self._pool.carriers(), *self._retired]
        for session in sessions:
            # All are told before any is waited for, so that their goodbyes run side by side.
            session.stop()
        # A close frame first; who is stuck in his socket by then (a peer that reads nothing) is cut loose, and there is
        # time left to join him.
        gentle = deadline.fraction(GENTLE_PART)
        for session in sessions:
            if not _ends_by(session, gentle):
                session.abort()
        return join_all((session.thread for session in sessions if session.thread is not None), deadline)

    def _tended(self) -> list[Session]:
        """The sessions; whose thread has died, and could not be replaced then, gets a new one now."""
        sessions = self._sessions()
        if not self._is_closed:
            for session in sessions:
                with contextlib.suppress(RuntimeError):  # still none to be had: it was told when the old one died
                    session.ensure()
        return sessions

    def _sessions(self) -> list[Session]:
        with self._lock:
            return self._pool.carriers()

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClosedError("the session manager is closed; make a new MarketDataBackbone")

    def __repr__(self) -> str:
        with self._lock:
            state = "closed" if self._is_closed else "open"
            return f"<SessionManager {state} {self._registry!r} {self._pool!r}>"


def _wake(sessions: Iterable[Session]) -> None:
    for session in sessions:
        with contextlib.suppress(RuntimeError):  # no thread to be had for one that has none: the next who looks tries
            session.ensure()
        session.wake()


def _is_alive(session: Session) -> bool:
    return session.thread is not None and session.thread.is_alive()


def _ends_by(session: Session, deadline: Deadline) -> bool:
    thread = session.thread
    if thread is None or thread is threading.current_thread():
        return True
    thread.join(deadline.remaining())
    return not thread.is_alive()
