"""The link between one process's limiter and the count it keeps with the others.

Where the file cannot be had (no temporary directory, no rights, a full disk) the limits of this process still hold;
the missing company is logged once.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable
from typing import TypeVar

from ..errors import one_line
from ..models.enums import RateGroup
from .shared_count import FileCount

T = TypeVar("T")
log = logging.getLogger("upbit_backbone.limits")


class SharedClaims:
    """Makes claims on a `FileCount`."""

    def __init__(self, count: FileCount) -> None:
        self._count = count
        self._numbers = itertools.count()
        self._is_reported = False

    def claim(self, group: RateGroup, on_ban: Callable[[float], object]) -> Claimant:
        return Claimant(self, group.value, f"{os.getpid()}-{id(self):x}-{next(self._numbers)}", on_ban)

    def ban(self, seconds: float | None) -> None:
        self.reporting(lambda: self._count.ban(seconds))

    def ask(self, group: str, per_second: float, ticket: str, on_ban: Callable[[float], object]) -> float:
        claim = self.reporting(lambda: self._count.take(group, per_second, ticket))
        if claim is None:
            return 0.0
        if claim.is_banned:
            on_ban(claim.wait)
        return claim.wait

    def settle(self, group: str, ticket: str, arrived_within: float | None) -> None:
        self.reporting(lambda: self._count.settle(group, ticket, arrived_within))

    def reporting(self, action: Callable[[], T]) -> T | None:
        """The action's result, or None where the file is out of reach."""
        try:
            return action()
        except OSError as theirs:
            if not self._is_reported:
                self._is_reported = True
                log.warning("limits are not shared with other processes", extra={"why": one_line(theirs)})
            return None


class Claimant:
    """One request's part in the common count."""

    __slots__ = ("_claims", "_group", "_on_ban", "_ticket")

    def __init__(self, claims: SharedClaims, group: str, ticket: str, on_ban: Callable[[float], object]) -> None:
        self._claims = claims
        self._group = group
        self._ticket = ticket
        self._on_ban = on_ban

    def ask(self, per_second: float) -> float:
        """0.0 when the request was counted, else seconds to wait."""
        return self._claims.ask(self._group, per_second, self._ticket, self._on_ban)

    def settle(self, arrived_within: float | None) -> None:
        self._claims.settle(self._group, self._ticket, arrived_within)
