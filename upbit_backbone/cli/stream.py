"""Following a subscription in the main thread: take what comes, draw now and then, end in time."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any, Protocol

from .._concurrency import Deadline
from ..errors import ClosedError

DRAW_SECONDS = 0.125


class Readable(Protocol):
    @property
    def queue(self) -> queue.Queue[Any]: ...


def follow(
    subscription: Readable,
    end: Deadline,
    take: Callable[[Any], object],
    draw: Callable[[], object] = lambda: None,
    is_over: Callable[[], bool] = lambda: False,
) -> None:
    """Give every item to `take` and call `draw` about eight times a second, until `end`, or until the stream is over.

    `take` may return True to end it.
    """
    items = subscription.queue
    next_drawing = Deadline.after(0.0)
    while not end.expired:
        try:
            if take(items.get(timeout=end.sooner(next_drawing.remaining_or(DRAW_SECONDS)).remaining_or(DRAW_SECONDS))):
                break
        except queue.Empty:
            if is_over() and items.empty():
                break
        except ClosedError:
            break
        if next_drawing.expired:
            draw()
            next_drawing = Deadline.after(DRAW_SECONDS)
    draw()
