"""What can be asked of a subscription, and what cannot: refused in words, before anything is entered anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from queue import PriorityQueue, Queue, SimpleQueue

from ..errors import InvalidRequestError
from ..models.enums import Overflow
from ..models.topic import Wish
from .mailbox import Mailbox


def check_arguments(
    wishes: Sequence[Wish],
    *,
    overflow: Overflow | str | None = None,
    maxsize: int | None = None,
    queue: object = None,
    callback: object = None,
    on_error: object = None,
    on_event: object = None,
) -> Overflow | None:
    """The policy meant by `overflow`; InvalidRequestError that names what a hub could not work with."""
    if not wishes:
        raise InvalidRequestError("nothing to subscribe to: name at least one symbol and one data type")
    for name, value in (("callback", callback), ("on_error", on_error), ("on_event", on_event)):
        if value is not None and not callable(value):
            raise InvalidRequestError(f"{name}={value!r}: expected something that can be called")
    if queue is not None and callback is not None:
        raise InvalidRequestError("callback= and queue= exclude each other; subscribe twice to have both")
    if queue is not None:
        _check_queue(queue)
    is_size = isinstance(maxsize, int) and not isinstance(maxsize, bool) and maxsize >= 1
    if maxsize is not None and not is_size:
        raise InvalidRequestError(f"maxsize={maxsize!r}: expected a whole number >= 1, or None for the default")
    return _check_overflow(overflow)


def _check_overflow(overflow: Overflow | str | None) -> Overflow | None:
    if overflow is None:
        return None
    try:
        return Overflow(overflow)
    except ValueError:
        words = ", ".join(f"Overflow.{each.name}" for each in Overflow)
        raise InvalidRequestError(f"overflow={overflow!r}: expected one of {words}") from None


def _check_queue(target: object) -> None:
    is_queue = isinstance(target, Queue | SimpleQueue)
    if not is_queue or isinstance(target, PriorityQueue | Mailbox):
        raise InvalidRequestError(
            f"queue={type(target).__name__}: expected a queue.Queue, queue.LifoQueue or queue.SimpleQueue"
        )
