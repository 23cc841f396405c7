"""Live data on the GUI thread, questions off it, against a real event loop without a screen."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.support.qt import deleted, run_until
from upbit_backbone import DataType, MarketDataBackbone, TickerData, UnknownSymbolError
from upbit_backbone.qt import QtBridge


def test_items_arrive_on_the_gui_thread(market: MarketDataBackbone) -> None:
    bridge = QtBridge(market.subscribe(["KRW-BTC", "KRW-ETH"], DataType.TICKER))
    seen: list[tuple[TickerData, threading.Thread]] = []
    bridge.received.connect(lambda ticker: seen.append((ticker, threading.current_thread())))
    run_until(lambda: {ticker.symbol for ticker, _ in seen} == {"KRW-BTC", "KRW-ETH"})
    assert all(thread is threading.main_thread() for _, thread in seen)
    bridge.close()


def test_a_question_is_asked_off_the_gui_thread_and_answered_on_it(market: MarketDataBackbone) -> None:
    bridge = QtBridge(market.subscribe("KRW-BTC", DataType.TICKER))
    answers: list[tuple[Any, threading.Thread]] = []
    bridge.ask(
        market.get_candles,
        "KRW-BTC",
        "1m",
        count=10,
        then=lambda candles: answers.append((candles, threading.current_thread())),
    )
    run_until(lambda: bool(answers))
    candles, thread = answers[0]
    assert len(candles) == 10
    assert thread is threading.main_thread()
    bridge.close()


def test_an_error_of_a_question_is_emitted_as_failed(market: MarketDataBackbone) -> None:
    bridge = QtBridge(market.subscribe("KRW-BTC", DataType.TICKER))
    errors: list[object] = []
    bridge.failed.connect(errors.append)
    bridge.ask(market.get_ticker, "KRW-NOPE", then=lambda _: None)
    run_until(lambda: bool(errors))
    assert isinstance(errors[0], UnknownSymbolError)
    bridge.close()


def test_the_bridge_says_when_the_subscription_has_ended(market: MarketDataBackbone) -> None:
    subscription = market.subscribe("KRW-BTC", DataType.TICKER)
    bridge = QtBridge(subscription)
    ended: list[bool] = []
    bridge.finished.connect(lambda: ended.append(True))
    subscription.close()
    run_until(lambda: bool(ended))
    assert ended == [True]
    bridge.close()


def test_deleting_the_bridge_closes_its_subscription(market: MarketDataBackbone) -> None:
    subscription = market.subscribe("KRW-BTC", DataType.TICKER)
    bridge = QtBridge(subscription)
    deleted(bridge)
    assert subscription.closed


def test_asking_something_else_than_a_method_of_a_backbone_is_refused(market: MarketDataBackbone) -> None:
    bridge = QtBridge(market.subscribe("KRW-BTC", DataType.TICKER))
    with pytest.raises(TypeError, match="MarketDataBackbone"):
        bridge.ask(print, then=print)
    assert "QtBridge running" in repr(bridge)
    bridge.close()
