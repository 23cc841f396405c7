"""Gathering: where frames come faster than threads can wake for each, several are read together.

A thread that wakes for one frame finds cold caches and spends three times what the frame itself costs; measured with
three connections that bring 3,000 frames a second, evenly, a wait of 2 ms after each read spares about a quarter of all
CPU, and a third on a busy machine.
"""

from __future__ import annotations

from typing import Final

GATHER_ABOVE: Final = 2000.0  # reads a second of all sessions; below it nobody waits
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
            # Whoever lets frames gather reads seldom: whether to go on is told by how many come, at worst one a read.
            count = self._messages if self.pause else self._reads
            self.pause = self._seconds if count >= GATHER_ABOVE * (now - self._since) else 0.0
            self._since, self._reads, self._messages = now, 0.0, 0.0

    def __repr__(self) -> str:
        return f"<Gathering {self.pause * 1000:g} ms of {self._seconds * 1000:g}>"
