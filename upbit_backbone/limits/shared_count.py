"""Shared count: what all counts of requests have in common that are kept together with others, in a file or not."""

from __future__ import annotations

import threading
import weakref
from typing import Final, NamedTuple, Protocol

from ..models.enums import RateGroup
from .ban import Ban
from .window import CLOCK_MARGIN_SECONDS, SECOND

LOOK_AGAIN_SECONDS: Final = 0.05  # a request under way may be settled any moment
ARRIVED_SECONDS: Final = SECOND + CLOCK_MARGIN_SECONDS


class Claim(NamedTuple):
    """The answer to who wants to send. `wait` 0.0: it is counted and may leave; else seconds after which to ask again.

    `at` is where it was counted. `ban` is in force, or `penalised` the time of a 429 for whose sake the group stands
    still so long.
    """

    wait: float
    at: int | None = None
    ban: Ban | None = None
    penalised: float | None = None


FREE: Final = Claim(0.0)


class Users:
    """Who uses what is let go of with the last of them. Who was never closed counts while he lives. Usable from any
    thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _all
        self._all: weakref.WeakSet[object] = weakref.WeakSet()

    def enter(self, user: object) -> None:
        with self._lock:
            self._all.add(user)

    def leave(self, user: object) -> bool:
        """Whether nobody is left."""
        with self._lock:
            self._all.discard(user)
            return not self._all

    def __len__(self) -> int:
        return len(self._all)

    def __repr__(self) -> str:
        return f"<Users {len(self)}>"


class SharedCount(Protocol):
    """Counts requests to one host together with others, for `users`. Usable from any thread; OSError where that cannot
    be."""

    users: Users

    @property
    def trouble(self) -> str | None: ...

    def take(self, group: RateGroup, limit: int, owner: int) -> Claim: ...

    def settle(self, group: RateGroup, owner: int, at: int | None, free_at: float | None) -> None: ...

    def holds(self, group: RateGroup, owner: int, at: int | None) -> bool: ...

    def counted(self, group: RateGroup) -> int: ...

    def pause(self, group: RateGroup, seconds: float) -> float: ...

    def impose_ban(self, seconds: float | None, sent_at: float | None, *, at_connect: bool) -> Ban: ...

    def passed(self, sent_at: float) -> None: ...

    def connecting(self) -> Ban: ...

    def close(self) -> None: ...

    def leave_to_parent(self) -> None: ...
