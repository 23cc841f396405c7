"""Question: a blocking call on its way off the GUI thread, and whoever gets its answer on it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

from .._concurrency import Flag
from ..errors import UpbitBackboneError
from .binding import Receiver
from .notice import tell


class Question:
    """What `bridge.ask` returns. For the GUI thread.

    `tag` is yours. `answer` and `error` are None until it has come; after `cancel()` neither comes.
    """

    def __init__(
        self,
        name: str,
        *,
        then: Callable[[Any], object] | None,
        failed: Callable[[Any], object] | None,
        tag: object,
        context: Any,
    ) -> None:
        self.tag = tag
        self.answer: Any = None
        self.error: BaseException | None = None
        self._name = name
        self._then = None if then is None else Receiver(then, context)
        self._failed = None if failed is None else Receiver(failed, context)
        self._future: Future[Any] | None = None
        self._is_cancelled = False
        self._called_off = Flag()

    @property
    def is_cancelled(self) -> bool:
        """Whether it was cancelled before it was answered."""
        return self._is_cancelled

    @property
    def is_done(self) -> bool:
        """Whether nothing more will come of it: answered, failed or cancelled."""
        return self._is_cancelled or self.error is not None or (self._future is not None and self._future.done())

    def cancel(self) -> None:
        """Nobody wants the answer any more: none is delivered from here on. Idempotent; returns at once.

        A call that has not begun is not made; a download ends within a moment; any other call runs to its end.
        """
        self._is_cancelled = True
        self._called_off.set()
        if self._future is not None:
            self._future.cancel()

    def options_of(self, method: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
        """`options`, with which a download hears of `cancel` as well."""
        try:
            takes_token = "cancel" in inspect.signature(method).parameters
        except (TypeError, ValueError):  # something in C that does not say
            return options
        return {"cancel": self._called_off, **options} if takes_token else options

    def begin(self, future: Future[Any], arrived: Callable[[Question], object]) -> None:
        """The call is under way; `arrived(question)` is called when it is over, on any thread."""
        self._future = future
        future.add_done_callback(lambda _: arrived(self))

    def settle(self) -> bool:
        """Take over what has come; False where nobody wants it."""
        if self._is_cancelled or self._future is None or not self._is_wanted:
            return False
        try:
            self.error = self._future.exception()
        except CancelledError:
            return False
        if self.error is None:
            self.answer = self._future.result()
        return True

    @property
    def _is_wanted(self) -> bool:
        """Whether whoever asked is still there."""
        receivers = [each for each in (self._then, self._failed) if each is not None]
        return not receivers or any(each.is_there for each in receivers)

    def deliver(self, report: Callable[[Any], object] | None) -> None:
        """Give what has come to whoever wants it; `report` gets an error that has no handler of its own."""
        if self.error is None:
            if self._then is not None:
                self._then(self.answer)
            return
        if self._failed is not None:
            self._failed(self.error)
        elif report is not None:
            report(self.error)
        if self._failed is None and report is None:
            is_ours = isinstance(self.error, UpbitBackboneError)
            tell(logging.ERROR, f"{self._name} failed: {self.error}", None if is_ours else self.error)

    def __repr__(self) -> str:
        state = "cancelled" if self._is_cancelled else "done" if self.is_done else "under way"
        return f"<Question {self._name} {state}{'' if self.tag is None else f', tag {self.tag!r}'}>"
