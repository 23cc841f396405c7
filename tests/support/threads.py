"""Calls on threads of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from tests.support.waiting import PATIENCE_SECONDS


class Call:
    """A call on a thread of its own, begun at once; `outcome()` is what it returned or raised.

    The thread is a user's, not one of the library's: who closes on it waits for the library's own.
    """

    def __init__(self, call: Callable[[], Any], name: str = "test-call") -> None:
        self._call = call
        self._outcome: list[Any] = []
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcome.append(self._call())
        except BaseException as error:
            self._outcome.append(error)

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def outcome(self, seconds: float = PATIENCE_SECONDS) -> Any:
        """What came of it, waiting for its end; an AssertionError where it does not end in time."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"still running after {seconds} s"
        return self._outcome[0]


def all_at_once(count: int, ask: Callable[[int], Any]) -> list[Any]:
    """`ask(n)` from so many threads at the same time; what each returned or raised, in the order of `n`."""
    barrier = threading.Barrier(count)

    def one(number: int) -> Any:
        barrier.wait(PATIENCE_SECONDS)
        return ask(number)

    calls = [Call(lambda number=number: one(number), f"test-ask-{number}") for number in range(count)]
    return [call.outcome(2 * PATIENCE_SECONDS) for call in calls]
