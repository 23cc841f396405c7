"""A program whose log handlers raise, whose threads cannot be started: the streams go on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from tests.lifecycle.lives import backbone_of
from tests.support.waiting import wait_until
from upbit_backbone import DataType, HealthStatus, MarketDataBackbone
from upbit_backbone.models.events import ConnectionState
from upbit_backbone.sessions.session import Session
from upbit_backbone.simulator import FakeUpbit

WAIT_SECONDS = 30.0


class Raising(logging.Handler):
    """An alert handler in an outage: the alerts cannot be sent."""

    def __init__(self, error: type[BaseException]) -> None:
        super().__init__(logging.DEBUG)
        self.error = error
        self.asked = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.asked += 1
        raise self.error("the mail server is away")


@pytest.fixture(params=[RuntimeError, SystemExit])
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Raising]:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler, logger = Raising(request.param), logging.getLogger("upbit_backbone")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.propagate = True
    logger.setLevel(level)


def sessions_of(market: MarketDataBackbone) -> list[Session]:
    return market._parts.sessions._sessions()  # type: ignore[union-attr]


@pytest.mark.parametrize("broken", [RuntimeError], indirect=True)
def test_a_stream_outlives_handlers_that_raise_on_every_line(broken: Raising, fresh_upbit: FakeUpbit) -> None:
    with backbone_of(fresh_upbit) as market, market.subscribe("KRW-BTC", "trade") as trades:
        trades.get(timeout=WAIT_SECONDS)
        for _ in range(2):
            fresh_upbit.close_sessions(1001)
            trades.queue.drain()
            wait_until(lambda: trades.get(timeout=WAIT_SECONDS) is not None, "a trade after the break")
        wait_until(lambda: trades.get(timeout=WAIT_SECONDS).source is not None, "the stream to go on")
        with market.subscribe("KRW-ETH", "trade") as others:  # placed on the session that was closed
            assert others.get(timeout=WAIT_SECONDS).symbol == "KRW-ETH"
        assert broken.asked > 0
        assert [session.state for session in sessions_of(market)] == [ConnectionState.LIVE]


def test_a_callback_thread_and_promotion_outlive_handlers_that_raise(broken: Raising, upbit: FakeUpbit) -> None:
    heard: list[object] = []
    with backbone_of(upbit, promote_after_questions=2) as market:

        def callback(item: object) -> None:
            heard.append(item)
            raise ValueError("a callback that always fails")

        market.subscribe_realtime("KRW-BTC", "trade", callback=callback)
        wait_until(lambda: len(heard) > 20, "the callback to be called again and again")
        promotion = market._parts.promotion_worker
        promotion.asked([topic for topic in (_ticker("KRW-XRP"),) for _ in range(3)])
        wait_until(lambda: market.get_ticker("KRW-XRP").source.name == "WEBSOCKET", "promotion")
        assert broken.asked > 0


def _ticker(symbol: str) -> object:
    from upbit_backbone.models.request import Topic

    return Topic(DataType.TICKER, symbol)


def test_a_housekeeper_that_failed_once_promotes_afterwards(
    upbit: FakeUpbit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with backbone_of(upbit, promote_after_questions=2) as market:
        promotions = market._parts.promotions
        flush, failed = promotions.flush, threading.Event()

        def broken() -> object:
            if not failed.is_set():
                failed.set()
                raise SystemExit
            return flush()

        monkeypatch.setattr(promotions, "flush", broken)
        wait_until(lambda: market.get_ticker("KRW-BTC", max_age=0) and failed.is_set(), "the first promotion")
        wait_until(lambda: market.get_ticker("KRW-ETH").source.name == "WEBSOCKET", "the next promotion")
        assert "upbit-promotion failed and goes on" in caplog.text


def test_a_session_whose_thread_has_died_is_told_of_replaced_and_streams_again(
    upbit: FakeUpbit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a thread can die of: here the loop itself breaks, and the report of it, too."""
    with backbone_of(upbit) as market, market.subscribe("KRW-BTC", "trade") as trades:
        trades.get(timeout=WAIT_SECONDS)
        (session,) = sessions_of(market)
        first = session.thread
        assert first is not None
        broke = threading.Event()
        take_turn = session._loop._take_turn

        def broken() -> None:
            if not broke.is_set():
                broke.set()
                raise SystemExit
            take_turn()

        monkeypatch.setattr(session._loop, "_take_turn", broken)
        assert broke.wait(WAIT_SECONDS)
        wait_until(lambda: session.thread is not first, "a new thread")
        trades.queue.drain()
        assert trades.get(timeout=WAIT_SECONDS)
        assert "broke out of its loop" in caplog.text
        wait_until(lambda: not first.is_alive(), "the end of the old thread")


def test_a_session_without_a_thread_gets_one_when_somebody_looks(
    upbit: FakeUpbit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with backbone_of(upbit) as market, market.subscribe("KRW-BTC", "trade") as trades:
        trades.get(timeout=WAIT_SECONDS)
        (session,) = sessions_of(market)
        first = session.thread
        assert first is not None

        def no_thread(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        def broken() -> None:
            raise SystemExit

        with monkeypatch.context() as patch:
            patch.setattr("upbit_backbone._concurrency._start", no_thread)
            patch.setattr(session._loop, "_take_turn", broken)
            session.wake()
            first.join(WAIT_SECONDS)
            assert not first.is_alive()
        assert "no thread to replace" in caplog.text
        assert market.health().status in HealthStatus
        wait_until(lambda: session.thread is not first and session.thread.is_alive(), "a new thread")
        trades.queue.drain()
        assert trades.get(timeout=WAIT_SECONDS)


def test_a_listener_whose_thread_failed_to_start_is_not_kept(upbit: FakeUpbit, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with backbone_of(upbit) as market:
        events = market._parts.events
        with monkeypatch.context() as patch:
            patch.setattr("upbit_backbone._concurrency._start", no_thread)
            with pytest.raises(RuntimeError):
                events.listen(print)
        assert events._listening == ()
