"""Event bus: status events on their way to listeners; emitting never waits, each listener has its own thread."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from .._concurrency import Deadline, get_logger, is_interrupting, raise_if_users, spawn_unwaited
from ..errors import ClosedError
from ..models.enums import DataType, Overflow
from ..models.events import Event
from ..models.request import Topic
from .consumer import Consumer
from .mailbox import Mailbox

log = get_logger("upbit_backbone.delivery")

WAITING_EVENTS = 1000  # for a slow listener; then the oldest go, because what is wrong now matters more
RECENT_EVENTS = 200
FLUSH_SECONDS = 0.2  # for last words
CLOSE_SECONDS = 1.5  # of the two seconds within which whoever closes is done

Listener = Callable[[Any], object]
Wants = Callable[[Event], bool]

# Mailboxes sort by topic; to them all events are about one.
_TOPIC = Topic(DataType.TRADE, "events")


class Listening:
    """One listener at work: its mailbox, its thread and what it wants to hear."""

    def __init__(self, name: str, listener: Listener, wants: Wants | None, leave: Callable[[Listening], None]) -> None:
        self.mailbox = Mailbox(Overflow.DROP_OLDEST, WAITING_EVENTS)
        self.consumer = Consumer(self.mailbox, listener, name)
        self.wants = wants
        self._leave = leave

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """No call begins after this has returned; waits for the one under way, at most `timeout`. Idempotent.

        Waits for nothing where it interrupts this library (a finalizer, a signal handler), as `Subscription.close`.
        """
        if self.mailbox.is_foreign:
            return
        if is_interrupting():
            self.mailbox.begin_close()
            spawn_unwaited(self.begin_close, "upbit-closing-events")
            return
        self.begin_close()
        self.finish_close(Deadline.after(timeout))

    def begin_close(self) -> None:
        self._leave(self)
        self.mailbox.close()

    def finish_close(self, deadline: Deadline) -> list[str]:
        """Wait for the call under way; the thread's name if it is still running."""
        return self.consumer.stop(deadline)

    def flush(self, deadline: Deadline) -> None:
        """Let it hear what waits already."""
        if not self.consumer.is_own_thread:
            self.mailbox.wait_empty(deadline)


class EventBus:
    """Gives every event to every listener that wants it, in order, and remembers the last few.

    A listener runs on its own thread, so a slow or failing one hurts only itself; more than a thousand events waiting
    for it, and the oldest are dropped. Its errors are logged, not emitted. No listener is called after it was removed
    or the bus was closed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()  # guards every change of _listening, and _closed
        self._listening: tuple[Listening, ...] = ()
        self._closed = False
        self._recent: deque[Event] = deque(maxlen=RECENT_EVENTS)

    def emit(self, event: Event) -> None:
        """Tell everyone. From any thread, also the stream's: it never waits and never raises."""
        # Without the lock, because the stream emits, too: an append and a look at the tuple are single operations.
        self._recent.append(event)
        for listening in self._listening:
            try:
                if listening.wants is None or listening.wants(event):
                    listening.mailbox.put_many([(_TOPIC, event, self._clock())])  # type: ignore[list-item]
            except BaseException as error:
                raise_if_users(error)
                log.exception("an event was not delivered", extra={"upbit_event": type(event).__name__})

    def listen(self, listener: Listener, *, wants: Wants | None = None) -> Listening:
        """Call `listener(event)` from now on, for the events it wants, until what is returned is closed."""
        listening = Listening(f"upbit-events-{next(self._numbers)}", listener, wants, self._leave)
        try:
            with self._lock:
                if self._closed:
                    raise ClosedError("the backbone is closed; make a new one")
                # Replaced whole: `emit` walks over it without the lock.
                self._listening = (*self._listening, listening)
            listening.consumer.start()
        except BaseException:
            # No thread to be had, or Ctrl-C, also on the way out of the lock: nobody could ever take this listener
            # out again.
            listening.begin_close()
            raise
        return listening

    def recent(self, count: int = RECENT_EVENTS) -> list[Event]:
        """The last events, oldest first."""
        return list(self._recent)[-count:]

    def close(self, deadline: Deadline) -> list[str]:
        """Give listeners a moment to hear what waits for them, then remove them; names of threads still running."""
        with self._lock:
            self._closed = True
            everyone = self._listening
        # Before anybody is removed: the last receipts were emitted a moment ago, and their listeners have yet to hear
        # them.
        self.flush(deadline)
        for listening in everyone:
            # All at first, then the waiting, so that slow listeners are waited for side by side.
            listening.begin_close()
        return [name for listening in everyone for name in listening.finish_close(deadline)]

    def flush(self, deadline: Deadline) -> None:
        """Give listeners a moment to hear what waits for them."""
        last_words = deadline.sooner(FLUSH_SECONDS)
        for listening in self._listening:
            listening.flush(last_words)

    def _leave(self, leaving: Listening) -> None:
        with self._lock:
            self._listening = tuple(each for each in self._listening if each is not leaving)

    def __repr__(self) -> str:
        return f"<EventBus {len(self._listening)} listeners, {len(self._recent)} recent events>"
