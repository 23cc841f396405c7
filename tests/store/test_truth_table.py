"""Current means current: what is live, and how old, in every situation of line, clock and market. A golden table.

Each row is a scene played to a real intake and store under a hand clock: seconds on Upbit's clock, frames as Upbit
spells them. Quiet stays current, late never is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime

import pytest

from upbit_backbone._concurrency import Deadline
from upbit_backbone.delivery.event_bus import EventBus
from upbit_backbone.delivery.hub import Hub
from upbit_backbone.intake import Intake
from upbit_backbone.models.enums import DataSource, DataType
from upbit_backbone.models.market import TickerData
from upbit_backbone.models.request import Topic
from upbit_backbone.models.session import SessionHealth
from upbit_backbone.store.exchange_clock import ExchangeClock
from upbit_backbone.store.live_store import LiveStore

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
BTC, ETH = Topic(DataType.TICKER, "KRW-BTC"), Topic(DataType.TICKER, "KRW-ETH")
BOOK = Topic(DataType.ORDERBOOK, "KRW-BTC")


class Scene:
    """Upbit's clock shows NOON + `now`; ours is `wrong_by` seconds off, and its monotonic one began at 1000."""

    def __init__(self, wrong_by: float) -> None:
        self.now = 0.0
        self._wrong_by = wrong_by
        self.exchange_clock = ExchangeClock(self)
        self.store = LiveStore(10.0, clock=self, exchange_clock=self.exchange_clock)
        self.events = EventBus()
        self.hub = Hub(self.events, current=lambda topic: self.intake.current(topic))
        self.intake = Intake(self.store, self.hub, clock=self, exchange_clock=self.exchange_clock)
        self.health = self.connected("session-1")
        for second in range(-40, 0):
            self.at(second + 0.013 * second)
            self.exchange_clock.learn_date(
                format_datetime(self._upbits_now.replace(microsecond=0)), self.monotonic(), 0.01
            )
        self.at(0.0)

    def connected(self, name: str) -> SessionHealth:
        health = SessionHealth(name)
        health.connected, health.epoch, health.heard_at = True, 1, self.monotonic()
        health.clock_offset = self._wrong_by + NOON.timestamp() - 1000.0
        return health

    def monotonic(self) -> float:
        return 1000.0 + self.now

    def wall(self) -> datetime:
        return NOON + timedelta(seconds=self.now + self._wrong_by)

    @property
    def _upbits_now(self) -> datetime:
        return NOON + timedelta(seconds=self.now)

    def at(self, now: float) -> Scene:
        self.now = now
        return self

    def subscribes(self, *topics: Topic) -> Scene:
        self.intake.subscribed(self.health, 1, frozenset(topics))
        return self

    def hears(self, stamp: float, traded: float | None = None, code: str = "KRW-BTC") -> Scene:
        """A ticker made at `stamp` comes now."""
        return self.reads(ticker_frame(stamp, stamp if traded is None else traded, code))

    def reads(self, frame: bytes) -> Scene:
        self.health.heard_at = self.monotonic()
        self.intake.frames(self.health, 1, [frame], self.monotonic())
        return self

    def pong(self, seconds: float = 0.02) -> Scene:
        """An answer to a ping sent so many seconds ago comes now."""
        self.health.heard_at = self.monotonic()
        self.health.answered(seconds, self.monotonic())
        return self

    def rest(self, stamp: float, traded: float | None = None) -> Scene:
        """REST shows a ticker made at `stamp`."""
        moments = [NOON + timedelta(seconds=stamp if each is None else each) for each in (None, traded)]
        item = TickerData("KRW-BTC", Decimal(1), *[Decimal(1)] * 6, moments[0], DataSource.REST,
                          trade_timestamp=moments[1], received_at=self.wall())  # fmt: skip
        self.store.remember([item])
        return self


def milliseconds(second: float) -> int:
    return round((NOON.timestamp() + second) * 1000)


def ticker_frame(stamp: float, traded: float, code: str) -> bytes:
    fields = {
        "ty": "ticker", "cd": code, "op": 1, "hp": 2, "lp": 1, "tp": 1, "pcp": 1, "c": "RISE", "cp": 1, "scp": 1,
        "cr": 0.1, "scr": 0.1, "tv": 1, "atv": 1, "atv24h": 1, "atp": 1, "atp24h": 1, "tdt": "20261120",
        "ttm": "120000", "ttms": milliseconds(traded), "ab": "BID", "aav": 1, "abv": 1, "h52wp": 9,
        "h52wdt": "2026-01-01", "l52wp": 1, "l52wdt": "2026-01-01", "ms": "ACTIVE", "dd": None,
        "tms": milliseconds(stamp), "st": "REALTIME",
    }  # fmt: skip
    return json.dumps(fields, separators=(",", ":")).encode()


def book_frame(stamp: float) -> bytes:
    units = [{"ap": 11.5, "bp": 10.5, "as": 1, "bs": 2}]
    fields = {"ty": "orderbook", "cd": "KRW-BTC", "tms": milliseconds(stamp), "tas": 1, "tbs": 2, "obu": units,
              "st": "REALTIME", "lv": 0}  # fmt: skip
    return json.dumps(fields, separators=(",", ":")).encode()


def begun(scene: Scene) -> Scene:
    """BTC and ETH stream, in time: first frames at 0.05, news at 1.0 and 1.13."""
    scene.subscribes(BTC, ETH)
    scene.at(0.05).hears(-3600.0).hears(-7200.0, code="KRW-ETH")
    return scene.at(1.02).hears(1.0).at(1.15).hears(1.13, code="KRW-ETH")


def repeated(scene: Scene, until: float, stamp: Callable[[float], float], traded: float) -> Scene:
    second = scene.now
    while (second := second + 0.5) <= until:
        scene.at(second).hears(stamp(second), traded)
    return scene


# name: (the scene, whether BTC's ticker is live at its end, how old it is at most and at least, part of the reason)
TABLE: dict[str, tuple[Callable[[Scene], object], bool, float | None, str]] = {
    "in time": (begun, True, 0.02, ""),
    "its first frame is an hour old: a quiet market": (
        lambda s: s.subscribes(BTC).at(0.05).hears(-3600.0), True, 0.05, "",
    ),
    "quiet for eight seconds, the last pong three seconds ago": (
        lambda s: begun(s).at(6.0).pong().at(9.0), True, 3.02, "",
    ),
    "quiet while another market of the session moves": (
        lambda s: begun(s).at(8.02).hears(8.0, code="KRW-ETH"), True, 0.02, "",
    ),
    "1.5 s late: current, and as old as it is": (lambda s: begun(s).at(4.5).hears(3.0), True, 1.5, ""),
    "5 s late": (lambda s: begun(s).at(9.0).hears(4.0), False, None, "5.0 s behind Upbit"),
    "late from its start": (
        lambda s: s.subscribes(BTC).at(40.0).hears(0.1).at(40.5).hears(0.6), False, None, "behind Upbit",
    ),
    "its first frame came 13 s after the subscription, and nobody knows what else is on its way": (
        lambda s: s.subscribes(BTC).at(13.0).hears(-3600.0), False, None, "13.0 s behind Upbit",
    ),
    "its first frame was long under way, but a pong shows that nothing else is": (
        lambda s: s.subscribes(BTC).at(13.0).hears(-3600.0).at(14.0).pong(), True, 0.02, "",
    ),
    "pongs wait behind four seconds of data": (lambda s: begun(s).at(9.0).pong(4.0), False, None, "4.0 s behind"),
    "pongs are quick, but what Upbit sends was made five seconds ago": (
        lambda s: begun(s).at(9.0).hears(4.0).at(9.5).pong().at(10.0).hears(5.0).at(10.5).pong(),
        False, None, "behind Upbit",
    ),
    "the whole session was late, and is in time again": (
        lambda s: begun(s).at(9.0).hears(4.0).at(9.5).hears(9.48), True, 0.02, "",
    ),
    "late, then in time on another topic only": (
        lambda s: begun(s).at(9.0).hears(4.0).at(9.5).hears(9.48, code="KRW-ETH"), False, None, "came 5.0 s late",
    ),
    "late, then REST shows the same": (
        lambda s: begun(s).at(9.0).hears(4.0).at(9.5).hears(9.48, code="KRW-ETH").rest(4.0), True, None, "",
    ),
    "late, then quiet for longer than that, and a pong: the session is well, its late market unproven": (
        lambda s: begun(s).at(9.0).hears(4.0).at(15.0).pong(), False, None, "came 5.0 s late",
    ),
    "late, then quiet for longer than that, and a pong: its other markets are current": (
        lambda s: begun(s).at(9.0).hears(4.0, code="KRW-ETH").at(15.0).pong(), True, 0.02, "",
    ),
    "one market 1.9 s late on a session in time": (
        lambda s: begun(s).at(5.9).hears(4.0).at(5.95).hears(5.94, code="KRW-ETH"), True, 1.95, "",
    ),
    "one market 3 s late on a session in time": (
        lambda s: begun(s).at(7.0).hears(4.0).at(7.05).hears(7.04, code="KRW-ETH"), False, None, "came 3.0 s late",
    ),
    "a book 3 s late on a session in time": (
        lambda s: s.subscribes(BTC, ETH, BOOK).at(0.05).hears(0.0).hears(0.0, code="KRW-ETH").reads(book_frame(0.0))
        .at(7.0).reads(book_frame(4.0)).at(7.05).hears(7.04), True, 0.01, "",
    ),
    "the same frame again and again, and REST knows better": (
        lambda s: repeated(begun(s), 9.0, lambda now: 1.0, 1.0).rest(9.0), False, None, "contradicts",
    ),
    "fresh stamps on a frozen trade, and REST knows better": (
        lambda s: repeated(begun(s), 9.0, lambda now: now, 1.0).rest(9.0), False, None, "contradicts",
    ),
    "fresh stamps on an earlier trade": (
        lambda s: repeated(begun(s), 9.0, lambda now: now, -5.0), False, None, "contradicts",
    ),
    "nothing heard for eleven seconds": (lambda s: begun(s).at(12.2), False, None, "not been heard for 11.1 s"),
}  # fmt: skip


@contextmanager
def scene_of(wrong_by: float) -> Iterator[Scene]:
    scene = Scene(wrong_by)
    try:
        yield scene
    finally:
        scene.hub.close(Deadline.after(2))
        scene.events.close(Deadline.after(2))


@pytest.mark.parametrize("wrong_by", [0.0, 3600.0, -40.0], ids=["our clock is right", "an hour ahead", "40 s behind"])
@pytest.mark.parametrize("situation", TABLE)
def test_current_means_current(situation: str, wrong_by: float) -> None:
    play, is_live, age, reason = TABLE[situation]
    with scene_of(wrong_by) as scene:
        play(scene)
        now = scene.monotonic()
        assert (scene.store.current(BTC, now) is not None) == is_live, scene.store.why_not(BTC, now)
        assert reason in (scene.store.why_not(BTC, now) or "")
        if age is not None:
            # Never younger than it is; older only by what is not known of Upbit's clock.
            assert age - 1e-3 <= (scene.store.age(BTC, now) or 0.0) <= age + 0.06


def test_a_late_book_is_not_current_while_the_ticker_of_its_market_is() -> None:
    with scene_of(0.0) as scene:
        TABLE["a book 3 s late on a session in time"][0](scene)
        assert scene.store.current(BOOK, scene.monotonic()) is None
        assert "came 3.0 s late" in (scene.store.why_not(BOOK, scene.monotonic()) or "")


@pytest.mark.parametrize(
    ("stamp", "traded"),
    [(lambda now: 1.0, 1.0), (lambda now: now, 1.0), (lambda now: now, -5.0)],
    ids=["the same frame", "a frozen trade", "an earlier trade"],
)
def test_what_is_said_again_is_no_news(stamp: Callable[[float], float], traded: float) -> None:
    with scene_of(0.0) as scene:
        repeated(begun(scene), 9.0, stamp, traded)
        entry = scene.store.entry(BTC)
        assert entry is not None
        assert entry.news_at == 1001.02
        assert scene.health.news_at == 1001.15  # the other market's


def test_the_wait_for_a_value_made_after_the_call_passes_over_what_was_under_way() -> None:
    with scene_of(0.0) as scene:
        begun(scene)
        asked_at = scene.at(2.0).monotonic()

        def made_after() -> datetime | None:
            return scene.exchange_clock.latest_time(asked_at)

        expired = Deadline.after(0.0)
        scene.at(2.1).hears(1.99)
        assert scene.store.wait_newer(BTC, asked_at, expired) is not None
        assert scene.store.wait_newer(BTC, asked_at, expired, made_after) is None
        scene.at(2.2).hears(2.15)
        newer = scene.store.wait_newer(BTC, asked_at, expired, made_after)
        assert newer is not None
        assert newer.timestamp == NOON + timedelta(seconds=2.15)


def test_the_first_frame_of_a_subscription_sent_before_the_call_is_not_one_made_for_it() -> None:
    with scene_of(0.0) as scene:
        begun(scene)
        asked_at = scene.at(2.0).monotonic()
        expired = Deadline.after(0.0)
        scene.at(2.1).hears(1.5)
        assert scene.store.wait_newer(BTC, asked_at, expired) is not None
        assert scene.store.wait_newer(BTC, asked_at, expired, asked_after=asked_at) is None
        scene.intake.subscribed(scene.health, 1, frozenset())
        scene.intake.subscribed(scene.health, 1, frozenset({BTC}))
        scene.at(2.2).hears(1.5)
        assert scene.store.wait_newer(BTC, asked_at, expired, asked_after=asked_at) is not None
        scene.at(2.3).hears(1.6)
        assert scene.store.wait_newer(BTC, asked_at, expired, asked_after=asked_at) is not None, "nor what follows it"


def test_nobody_waits_for_a_value_that_comes_too_late() -> None:
    with scene_of(0.0) as scene:
        begun(scene)
        asked_at = scene.monotonic()
        scene.at(9.0).hears(4.0)
        assert scene.store.wait_newer(BTC, asked_at, Deadline.after(0.0)) is None
