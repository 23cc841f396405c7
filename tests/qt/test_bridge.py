"""Live data on the GUI thread, questions off it, against a real event loop without a screen."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.waiting import wait_until
from upbit_backbone import DataType, MarketDataBackbone, TickerData, UnknownSymbolError
from upbit_backbone.simulator import FakeUpbit

pytest.importorskip("qtpy", reason="the extra [qt] is not installed")
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from qtpy.QtCore import QCoreApplication, QEvent, QObject

from upbit_backbone.qt import QtBridge

PATIENCE_SECONDS = 10.0


@pytest.fixture(scope="module")
def app() -> QCoreApplication:
    return QCoreApplication.instance() or QCoreApplication([])


@pytest.fixture(scope="module")
def upbit() -> Iterator[FakeUpbit]:
    with FakeUpbit(seed=5, markets=["KRW-BTC", "KRW-ETH"], trades_per_second=50) as simulator:
        yield simulator


@pytest.fixture
def market(upbit: FakeUpbit) -> Iterator[MarketDataBackbone]:
    with MarketDataBackbone(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url) as backbone:
        yield backbone


def run_until(app: QCoreApplication, condition: Callable[[], bool]) -> None:
    wait_until(lambda: app.processEvents() or condition(), "the event loop's turn")


def deleted(app: QCoreApplication, thing: QObject) -> None:
    thing.deleteLater()
    app.sendPostedEvents(thing, QEvent.Type.DeferredDelete)


def test_items_arrive_on_the_gui_thread(app: QCoreApplication, market: MarketDataBackbone) -> None:
    bridge = QtBridge(market.subscribe(["KRW-BTC", "KRW-ETH"], DataType.TICKER))
    seen: list[tuple[TickerData, threading.Thread]] = []
    bridge.received.connect(lambda ticker: seen.append((ticker, threading.current_thread())))
    run_until(app, lambda: {ticker.symbol for ticker, _ in seen} == {"KRW-BTC", "KRW-ETH"})
    assert all(thread is threading.main_thread() for _, thread in seen)
    bridge.close()


def test_a_question_is_asked_off_the_gui_thread_and_answered_on_it(
    app: QCoreApplication, market: MarketDataBackbone
) -> None:
    bridge = QtBridge(market.subscribe("KRW-BTC", DataType.TICKER))
    answers: list[tuple[Any, threading.Thread]] = []
    bridge.ask(
        market.get_candles,
        "KRW-BTC",
        "1m",
        count=10,
        then=lambda candles: answers.append((candles, threading.current_thread())),
    )
    run_until(app, lambda: bool(answers))
    candles, thread = answers[0]
    assert len(candles) == 10
    assert thread is threading.main_thread()
    bridge.close()


def test_an_error_of_a_question_is_emitted_as_failed(app: QCoreApplication, market: MarketDataBackbone) -> None:
    bridge = QtBridge(market.subscribe("KRW-BTC", DataType.TICKER))
    errors: list[object] = []
    bridge.failed.connect(errors.append)
    bridge.ask(market.get_ticker, "KRW-NOPE", then=lambda _: None)
    run_until(app, lambda: bool(errors))
    assert isinstance(errors[0], UnknownSymbolError)
    bridge.close()


def test_the_bridge_says_when_the_subscription_has_ended(app: QCoreApplication, market: MarketDataBackbone) -> None:
    subscription = market.subscribe("KRW-BTC", DataType.TICKER)
    bridge = QtBridge(subscription)
    ended: list[bool] = []
    bridge.finished.connect(lambda: ended.append(True))
    subscription.close()
    run_until(app, lambda: bool(ended))
    assert ended == [True]
    bridge.close()


def test_deleting_the_bridge_closes_its_subscription(app: QCoreApplication, market: MarketDataBackbone) -> None:
    subscription = market.subscribe("KRW-BTC", DataType.TICKER)
    bridge = QtBridge(subscription)
    deleted(app, bridge)
    assert subscription.closed


def test_asking_something_else_than_a_method_of_a_backbone_is_refused(
    app: QCoreApplication, market: MarketDataBackbone
) -> None:
    bridge = QtBridge(market.subscribe("KRW-BTC", DataType.TICKER))
    with pytest.raises(TypeError, match="MarketDataBackbone"):
        bridge.ask(print, then=print)
    assert "QtBridge running" in repr(bridge)
    bridge.close()
