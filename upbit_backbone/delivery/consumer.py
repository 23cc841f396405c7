"""Consumer: a callback is a mailbox and one thread that empties it; what the callback does, it does only to itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._concurrency import Deadline, LoopThread, calls_users, get_logger
from .._log import LogThrottle
from ..errors import UpbitBackboneError
from .mailbox import Mailbox

log = get_logger("upbit_backbone.delivery")

# One failing callback at a thousand messages a second shall not fill a disk.
REPORT_EVERY_SECONDS = 1.0

OnError = Callable[[BaseException], object]
# Told of an error and how many came in a row; sampled.
OnFailure = Callable[[BaseException, int], None]


class Consumer:
    """Calls `callback` with every item, one at a time, on a thread of its own.

    An error of the callback (SystemExit and KeyboardInterrupt included) is given to `on_error`, counted and reported,
    and the next item follows. `at_end` is called on that thread when no item will follow any more. `stop` promises that
    no call begins after it has returned, and waits for the one under way; inside the callback itself it returns at
    once, and none begins after the callback has returned.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        callback: Callable[[Any], object],
        name: str,
        *,
        on_error: OnError | None = None,
        on_failure: OnFailure | None = None,
        at_end: Callable[[], object] | None = None,
    ) -> None:
        self._mailbox = mailbox
        self._callback = callback
        self._name = name
        self._on_error = on_error
        self._on_failure = on_failure
        self._sampler = LogThrottle(REPORT_EVERY_SECONDS)
        self._is_done = False
        self._loop = LoopThread(self._serve, name, is_over=lambda: self._is_done, failed=self._broke_off, at_end=at_end)
        self.errors = 0
        self.errors_in_a_row = 0
        self._untold = 0  # errors in a row that `on_error` itself failed to take

    def start(self) -> None:
        """RuntimeError if the system has no thread to give."""
        self._loop.ensure()

    def ensure(self) -> None:
        """Go on with a new thread, if the old one has died and the system has one to give."""
        self._loop.revive()

    def stop(self, deadline: Deadline) -> list[str]:
        """Close the mailbox, wait for the callback under way, join the thread; names of those still running."""
        self._mailbox.close()
        # Closed from within its own callback: waiting for that callback would wait for itself.
        if self.is_own_thread or not self.is_alive:
            return []
        if not self._mailbox.wait_idle(deadline):
            log.warning("%s: its callback is still running although it was closed", self._name)
            return [self._name]
        return self._loop.join(deadline)

    @property
    def is_own_thread(self) -> bool:
        return self._loop.is_current

    @property
    def is_alive(self) -> bool:
        return self._loop.is_alive

    @calls_users
    def _serve(self) -> None:
        mailbox = self._mailbox
        while True:
            try:
                item = mailbox.begin_turn()
            except UpbitBackboneError as ended:
                self._is_done = True
                self._failed(ended)
                return
            if item is None:
                self._is_done = True
                return
            try:
                # Looked at once more after the item was taken out: `close` promises that no call begins after it has
                # returned.
                if not mailbox.closed_by_user:
                    self._callback(item)
                # Only here, where a call has come back: nothing else shows that the callback works again.
                self.errors_in_a_row = 0
            except BaseException as error:  # noqa: BLE001 - whatever a callback raises must not end the stream
                self._failed(error)
            finally:
                # In `finally`: whoever closes waits for this turn, and would wait until his deadline for one that
                # nobody ends.
                mailbox.end_turn()
                # Or the last book would stay in memory for as long as its market is silent.
                item = None

    def _broke_off(self, error: BaseException) -> None:
        """Not the callback failed, but what is around it: the item at hand is lost, and the next one follows."""
        log.error("%s broke off and goes on", self._name, exc_info=error)
        self._mailbox.end_turn()

    @calls_users
    def _failed(self, error: BaseException) -> None:
        self.errors += 1
        self.errors_in_a_row += 1
        if self._on_error is not None:
            self._tell(self._on_error, error)
        # The user's own `on_error` hears of every error; the log and the events are sampled.
        if not self._sampler.is_due(self.errors_in_a_row, self._mailbox.now()):
            return
        if self._is_done:
            log.error("%s: no item will follow", self._name, exc_info=error)
        else:
            log.error("%s: the callback failed (%d in a row)", self._name, self.errors_in_a_row, exc_info=error)
        if self._on_failure is not None:
            self._on_failure(error, self.errors_in_a_row)

    @calls_users
    def _tell(self, on_error: OnError, error: BaseException) -> None:
        try:
            on_error(error)
        except BaseException:  # once, not for each item: where one callback fails all the time, the other may, too
            self._untold += 1
            if self._untold == 1:
                log.exception("%s: on_error itself failed", self._name)
            return
        if self._untold > 1:
            log.warning("%s: on_error works again; it failed %d times in a row", self._name, self._untold)
        self._untold = 0

    def __repr__(self) -> str:
        return f"<Consumer {self._name} {'running' if self.is_alive else 'stopped'}, {self.errors} errors>"
