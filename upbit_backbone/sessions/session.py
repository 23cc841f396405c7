"""Session: the thread around a lifecycle, one per connection, owner of its socket for reading and writing.

Each turn waits, reads what is there, takes the commands of others, tells the lifecycle what time it is and
does what it says. Reading comes before the tick, so that no deadline is judged while an answer lies unread.
No user code runs here.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from .._concurrency import SLEEP_SECONDS, Deadline, Flag, LoopThread, clock_offset, get_logger, wall_seconds
from .._lazy import loading
from ..errors import NetworkError, UpbitBackboneError, one_line
from ..models.events import ConnectionState
from ..models.request import SubscriptionRequest
from . import messages as do
from . import messages as on
from .lifecycle import Lifecycle
from .ports import Collaborators
from .session_io import SessionSocket

if TYPE_CHECKING:
    from ..models.report import SessionStats

log = get_logger("upbit_backbone")

MAX_WAIT_SECONDS: Final = 2.0  # so that waking from the machine's sleep is noticed soon
ACQUIRE_SECONDS: Final = 0.5  # the wait for permission cannot be called off, so it is short


class Session:
    """One connection's worth of requests, kept alive by a thread of its own until `stop`.

    `requests` is asked, on that thread, for the whole requested set whenever somebody called `wake`.
    `retire` is asked whether a session that has become idle may end for good, and `shed` told when it carries more than
    its line can bring in time.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        with_: Collaborators,
        *,
        requests: Callable[[Session], frozenset[SubscriptionRequest]],
        retire: Callable[[Session], bool],
        shed: Callable[[Session], object] = lambda session: None,
    ) -> None:
        self.health: Final = lifecycle.health
        self._lifecycle = lifecycle
        self._with = with_
        self._now: Final = with_.clock.monotonic
        self._wall: Final = wall_seconds(with_.clock)
        self._take_frames: Final = with_.sink.frames
        self._gathering: Final = with_.gathering
        self._requests = requests
        self._retire = retire
        self._shed = shed
        self._commands: deque[on.Input] = deque()  # appended by anyone, taken by the thread
        self._requests_changed = False
        self._has_read = False  # in the last turn
        self._stop = Flag()
        self._socket = SessionSocket()
        self.health.clock_offset = self._clock_offset = clock_offset(with_.clock)
        self._loop = LoopThread(
            self._turn,
            f"upbit-{self.name}",
            is_over=lambda: lifecycle.state is ConnectionState.CLOSED,
            failed=self._start_over,
            at_end=self._socket.release,
        )

    @property
    def name(self) -> str:
        return self.health.session

    @property
    def state(self) -> ConnectionState:
        return self._lifecycle.state

    def start(self) -> None:
        """Begin; NetworkError if the system has no thread to give, after which the session is closed."""
        try:
            self._loop.ensure()
        except RuntimeError as theirs:
            self._socket.release()
            raise NetworkError(f"{self.name} cannot start: {one_line(theirs)}") from theirs

    def ensure(self) -> None:
        """Replace its thread if that has died; RuntimeError if the system has none to give."""
        self._loop.ensure()

    @property
    def thread(self) -> threading.Thread | None:
        return self._loop.thread

    def wake(self) -> None:
        """The requests have changed."""
        self.note_change()
        self._socket.wake()

    def note_change(self) -> None:
        """As `wake`, without hurry: it is seen within MAX_WAIT_SECONDS. One assignment, so nothing comes between."""
        self._requests_changed = True

    def command(self, command: on.Input) -> None:
        """Have the session's thread deal with `command` soon; ignored once closed."""
        self._commands.append(command)
        self._socket.wake()

    def stop(self) -> None:
        """Ask the session to end, without waiting; a connection attempt is called off."""
        self._stop.set()
        self._socket.wake()

    def abort(self) -> None:
        """Last resort against a thread that is stuck in its socket: cut the connection under it."""
        self._socket.abort()

    # The thread

    def _start_over(self, error: BaseException) -> None:
        """A turn failed: whatever nobody foresaw costs the connection, never the thread."""
        log.error("session failed and starts over", exc_info=error, extra={"session": self.name})
        # What is wanted may have been asked for and not taken in: a session at rest would never look again.
        self.wake()
        try:
            # At once, before any table is asked: nobody knows what state the turn left the socket in, and it must not
            # be read again.
            self._socket.drop(None)
        finally:
            # Should not even the report get through, perhaps for want of memory: the state has changed all the same,
            # and the retry policy keeps the next turns apart.
            self._perform(self._lifecycle.handle(on.Crashed(error), self._now()))

    def _turn(self) -> None:
        happened = None
        gathering = self._gathering
        if self._has_read and (pause := gathering.pause):
            happened = self._socket.gather(pause)
        seconds = self._lifecycle.next_wake() - self._now()
        if happened is None:
            happened = self._socket.read(seconds if seconds < MAX_WAIT_SECONDS else MAX_WAIT_SECONDS)
        if self._stop.is_set():
            self._apply(on.CloseRequested())
            return
        now = self._now()  # one look for the whole turn, after the read: what came was sent before
        # The wall clock runs while a machine sleeps, the monotonic one (on Linux) does not.
        jump = (offset := self._wall() - now) - self._clock_offset
        self._clock_offset = offset
        if jump > SLEEP_SECONDS:
            self._apply(on.ClockJumped(jump))
            happened = None  # it gives the line up, and what was read of it belongs to no other
        self.health.clock_offset = offset  # last: what came before the sleep is not live any more
        if isinstance(happened, bytes):
            self._has_read = True
            status = self._lifecycle.status
            before = status.messages
            if effects := self._lifecycle.take(happened, self._take_frames, now):
                self._perform(effects)
            gathering.has_read(status.messages - before, now)
        else:
            self._has_read = False
            if happened is not None:
                self._apply(happened)
        if self._commands or self._requests_changed:
            self._take_commands()
        if self._lifecycle.is_due(now):
            self._apply(on.Tick())

    def _take_commands(self) -> None:
        while self._commands:
            self._apply(self._commands.popleft())
        self._take_requests()

    def _take_requests(self) -> None:
        # A flag and not a queue of sets: only the newest set counts, whatever order threads arrive in.
        if self._requests_changed:
            # First the flag, then the question: a change in between is asked for once more.
            self._requests_changed = False
            self._apply(on.SubscriptionsChanged(self._requests(self)))

    # What the lifecycle wants

    def _apply(self, happened: on.Input) -> None:
        self._perform(self._lifecycle.handle(happened, self._now()))

    def _perform(self, effects: Sequence[do.Effect]) -> None:
        # Breadth first, because what an effect leads to must not overtake the effects that were decided before it.
        queue = deque(effects)
        while queue:
            effect = queue.popleft()
            result = _PERFORM[type(effect)](self, effect)
            if result is not None:
                queue.extend(self._lifecycle.handle(result, self._now()))

    def _dial(self, _: do.Dial) -> on.Input | None:
        deadline = Deadline.after(ACQUIRE_SECONDS, self._now)
        with ExitStack() as turn:
            try:
                # The second argument tells a line that was open before: such a one may try during a ban of REST, a
                # first connection waits.
                turn.enter_context(self._with.turn_to_connect(deadline, self._lifecycle.status.connects > 0))
            except UpbitBackboneError as error:
                return None if self._stop.is_set() else on.OpenDeferred(error)
            if self._stop.is_set():
                return None
            deadline = Deadline.after(self._with.connect_seconds, self._now)
            try:
                connection = self._with.dial(deadline, stop=self._stop)
            except UpbitBackboneError as error:
                return None if self._stop.is_set() else on.OpenFailed(error)
        # Before the lifecycle hears of it: what follows from Opened sends on this socket.
        self._socket.take(connection)
        self.health.source = connection.source
        self._take_requests()  # what changed while we dialled goes into the first message, not into a second one
        return on.Opened()

    def _send_text(self, effect: do.SendText) -> on.Input | None:
        return self._socket.send(lambda connection: connection.send_text(effect.text))

    def _send_ping(self, effect: do.SendPing) -> on.Input | None:
        return self._socket.send(lambda connection: connection.send_ping(effect.payload))

    def _send_pong(self, effect: do.SendPong) -> on.Input | None:
        return self._socket.send(lambda connection: connection.send_pong(effect.payload))

    def _drop(self, effect: do.Drop) -> None:
        self._socket.drop(effect.code)

    def _deliver(self, effect: do.Deliver) -> on.Input:
        notices = self._with.sink.frames(self.health, effect.epoch, effect.frames, self._now())
        return on.Noticed(effect.epoch, len(effect.frames), notices)

    def _hear_pong(self, effect: do.HearPong) -> on.Input:
        return on.Ponged(effect.epoch, effect.payload)

    def _tell_subscribed(self, effect: do.TellSubscribed) -> None:
        self._with.sink.subscribed(self.health, effect.epoch, effect.topics)

    def _tell_interrupted(self, effect: do.TellInterrupted) -> None:
        self._with.sink.interrupted(self.health, effect.epoch, effect.topics, effect.reason)

    def _emit(self, effect: do.Emit) -> None:
        self._with.emit(effect.event)

    def _ask_silent(self, effect: do.AskSilent) -> on.Input | None:
        if self._with.silent_topics is None:
            return None
        silent = self._with.silent_topics(effect.question.topics, effect.question.since)
        return on.SilentFound(effect.epoch, effect.question, silent)

    def _start_probe(self, effect: do.StartProbe) -> on.Input | None:
        try:
            self._with.run_job(partial(self._probe, effect))
        except (UpbitBackboneError, RuntimeError):  # closing, or no thread to be had: neither may cost the line
            return on.ProbeAnswered(effect.epoch, effect.topics, effect.whole_line, None)
        return None

    def _probe(self, effect: do.StartProbe) -> None:
        """Runs on a worker; whatever goes wrong there, the answer is: unknown."""
        behind = None
        try:
            behind = self._with.probe(effect.topics)
        except UpbitBackboneError as error:
            log.debug("probe failed", extra={"session": self.name, "reason": one_line(error)})
        finally:
            # In `finally`: without an answer the detector would take the probe for under way, and ask no other for half
            # a minute.
            self.command(on.ProbeAnswered(effect.epoch, effect.topics, effect.whole_line, behind))

    def _shed_load(self, _: do.ShedLoad) -> None:
        self._shed(self)

    def _report_refusal(self, effect: do.ReportRefusal) -> None:
        self._with.refused(effect.error)

    def _become_idle(self, _: do.BecameIdle) -> on.Input | None:
        return on.CloseRequested() if self._retire(self) else None

    # What others may know

    def stats(self) -> SessionStats:
        """The session's figures, from any thread. Each is right; two of them may be a moment apart."""
        with loading():  # what reports are made of costs a third of the first subscription
            from ..models.report import SessionStats

        status, health, line, now = self._lifecycle.status, self.health, self._lifecycle.line, self._now()
        return SessionStats(
            session=self.name,
            state=status.state,
            since=status.since,
            topics=len(self._requests(self)),
            epoch=health.epoch,
            last_data_age=_age(status.last_data_at, now),
            last_pong_age=_age(None if line is None else line.keep_alive.pong_at, now),
            pong_seconds=None if line is None else line.keep_alive.pong_seconds,
            messages=status.messages,
            bytes=status.bytes,
            connects=status.connects,
            reconnects=max(0, status.connects - 1),
            messages_sent=status.messages_sent,
            malformed=self._with.malformed(self.name),
            suspect=health.suspect,
            last_error=status.last_error,
            lag=None if health.proven_at is None else health.lag,
        )

    def __repr__(self) -> str:
        record = self._lifecycle.status
        return f"<Session {self.name} {record.state} epoch {self.health.epoch} {record.connects} connects>"


def _age(at: float | None, now: float) -> float | None:
    return None if at is None else max(0.0, now - at)


_PERFORM: Final[dict[type, Callable[[Session, Any], on.Input | None]]] = {
    do.Dial: Session._dial,
    do.SendText: Session._send_text,
    do.SendPing: Session._send_ping,
    do.SendPong: Session._send_pong,
    do.Drop: Session._drop,
    do.Deliver: Session._deliver,
    do.HearPong: Session._hear_pong,
    do.TellSubscribed: Session._tell_subscribed,
    do.TellInterrupted: Session._tell_interrupted,
    do.Emit: Session._emit,
    do.AskSilent: Session._ask_silent,
    do.StartProbe: Session._start_probe,
    do.ShedLoad: Session._shed_load,
    do.ReportRefusal: Session._report_refusal,
    do.BecameIdle: Session._become_idle,
}
