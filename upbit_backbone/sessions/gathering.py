"""Gathering: where frames come faster than threads can wake for each, several are read together.

A thread that wakes for one frame finds cold caches and spends three times what the frame itself costs. Measured, with
a wait of 2 ms after each read: one connection that brings 2,000 trades a second, evenly, costs half the CPU, and three
that bring 3,000 frames a quarter less; half of what comes is 1.3 ms later, and nothing more than those 2 ms.
"""

from __future__ import annotations

from typing import Final

GATHER_ABOVE: Final = 1500.0  # reads a second of all sessions; below it nobody begins to wait
# Messages a second below which waiting ends: a stream at the bound neither begins nor ends it with each window.
GATHER_UNTIL: Final = 1200.0
# Reads a second below which it ends, too: somebody else keeps the sessions from reading (a thread that computes), or
# frames come together as it is. A pause then gives the GIL up once more for each read, and spares nothing.
FEWEST_READS: Final = 200.0
_WINDOW_SECONDS: Final = 0.1


class Gathering:
    """Whether sessions let frames gather before they read again; one for all sessions of a manager.

    `pause` is what each waits now. Counted without a lock by whoever reads: where two threads meet one count of
    hundreds is lost.
    """

    def __init__(self, seconds: float) -> None:
        self.pause = 0.0
        self._seconds = seconds
        self._since = self._reads = self._messages = 0.0

    def has_read(self, messages: int, now: float) -> None:
        """One read has brought so many messages."""
        self._reads += 1
        self._messages += messages
        if now - self._since >= _WINDOW_SECONDS:
            self.pause = self._seconds if self._is_worth_it(now - self._since) else 0.0
            self._since, self._reads, self._messages = now, 0.0, 0.0

    def _is_worth_it(self, seconds: float) -> bool:
        """By what came in so many seconds."""
        if not self.pause:
            return self._reads >= GATHER_ABOVE * seconds
        # Whoever lets frames gather reads seldom: whether to go on is told by how many come, at worst one a read.
        return self._messages >= GATHER_UNTIL * seconds and self._reads >= FEWEST_READS * seconds

    def __repr__(self) -> str:
        return f"<Gathering {self.pause * 1000:g} ms of {self._seconds * 1000:g}>"
