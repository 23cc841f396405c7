"""How every function asks: patiently, then as pyupbit would fail, or in our own words with `strict()`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, TypeVar

from ..._concurrency import Deadline, Flag, wait_event
from ..._log import get_logger
from ...backbone import MarketDataBackbone
from ...default_backbone import shared_backbone
from ...errors import InvalidRequestError, NoTradesYetError, UpbitBackboneError
from ...models.enums import HealthStatus
from ...models.jsonable import Jsonable

log = get_logger("upbit_backbone.compat")
T = TypeVar("T")

STRICT_VARIABLE: Final = "UPBIT_BACKBONE_PYUPBIT_STRICT"
# pyupbit's callers know no timeout: long enough for a limit or a restart of Upbit's to pass, short enough for a program
# that expects None to get on.
PATIENCE_SECONDS: Final = 15.0
FIRST_PAUSE_SECONDS: Final = 0.25
REMEMBERED_REASONS: Final = 1000

_is_strict: bool | None = None  # None: as the environment says
_told: set[str] = set()  # what was logged already: a program that asks every second is told once


def backbone() -> MarketDataBackbone:
    """The `MarketDataBackbone` behind every function here; the one of `upbit_backbone.shared_backbone()`."""
    return shared_backbone()


def strict(is_on: bool = True) -> None:
    """From now on failures raise our own errors instead of giving None or pyupbit's; `strict(False)` goes back.

    The environment variable UPBIT_BACKBONE_PYUPBIT_STRICT=1 does the same from the start.
    """
    global _is_strict
    _is_strict = bool(is_on)


def is_strict() -> bool:
    if _is_strict is not None:
        return _is_strict
    return os.environ.get(STRICT_VARIABLE, "").lower() in ("1", "true", "yes", "on")


def patiently(question: Callable[[], T]) -> T:
    """Its answer; what another try may cure is tried again until PATIENCE_SECONDS have passed."""
    deadline = Deadline(monotonic() + PATIENCE_SECONDS)
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return question()
        except UpbitBackboneError as error:
            wait = max(pause, error.retry_after or 0.0)
            is_curable = error.retryable and not isinstance(error, NoTradesYetError)
            if not is_curable or wait > deadline.remaining_or(0.0):
                raise
        wait_event(Flag(), Deadline.after(wait))
        pause *= 2


def answer_or_none(what: str, question: Callable[[], T]) -> T | None:
    """Its answer; None, with the reason in the log once, where pyupbit gives None. `what` names the call there."""
    try:
        return patiently(question)
    except UpbitBackboneError as error:
        if is_strict():
            raise
        tell_once(f"pyupbit.{what} gives None: {error}")
        return None


def answer_or_error(question: Callable[[], T]) -> T:
    """Its answer, or pyupbit's kind of error with ours as its cause."""
    try:
        return patiently(question)
    except UpbitBackboneError as error:
        if is_strict():
            raise
        from .errors import error_for

        raise error_for(error) from error


def tell_once(text: str) -> None:
    """A warning in the log, unless the very same was there before."""
    if text in _told:
        return
    if len(_told) >= REMEMBERED_REASONS:
        _told.clear()
    _told.add(text)
    log.warning(text)


def remaining(group: str) -> dict[str, Any]:
    """What Upbit's `Remaining-Req` would say now, by our own limiter: answers from a stream need no request."""
    stats = {each.group: each for each in backbone().health().groups}[group]
    return {"group": group, "min": 600, "sec": max(0, int(stats.available))}  # min: docs, a constant without meaning


@dataclass(frozen=True, slots=True)
class Status(Jsonable):
    """How the functions here are served now: what streams, what has to wait, and what went wrong.

    `live_topics` are streamed on `connections` lines; `live_share` is the share of answers that cost no request.
    `limited` names the rate groups that pause, with the seconds they still do. `reasons` are in words.
    """

    health: HealthStatus
    connections: int
    live_topics: int
    live_share: float | None
    requests: int
    limited: Mapping[str, float]
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        share = "" if self.live_share is None else f", {self.live_share:.0%} of the answers came from a stream"
        lines = [f"{self.health.name}: {self.live_topics} streams live, {self.requests} requests so far{share}"]
        lines += [f"  {group} waits {seconds:.1f} s for Upbit's limit" for group, seconds in self.limited.items()]
        return "\n".join(lines + [f"  {reason}" for reason in self.reasons])


def status() -> Status:
    """What is live and what is limited: `print(pyupbit.status())`. Asks nobody."""
    report = backbone().health()
    return Status(
        health=report.status,
        connections=len(report.sessions),
        live_topics=sum(each.topics for each in report.sessions if each.last_data_age is not None),
        live_share=report.performance.live_share,
        requests=sum(each.requests for each in report.groups),
        limited={each.group: each.paused_for for each in report.groups if each.paused_for},
        reasons=report.reasons,
    )


def unknown(said: str, meant: str) -> InvalidRequestError:
    """pyupbit takes a market code as it stands, and so do programs that expect to hear that there is none."""
    from ...errors import UnknownSymbolError

    return UnknownSymbolError(
        f"Upbit has no market {said}; did you mean {meant}?", symbols=(said,), suggestions=(meant,)
    )
