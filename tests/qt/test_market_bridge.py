"""A backbone on the GUI thread: what it brings, when it is stale, and that nothing of it blocks."""

from __future__ import annotations

import gc
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QLabel, QTableView, QWidget

from tests.support.qt import deleted, run_until
from tests.support.waiting import promised, wait_until
from upbit_backbone import (
    ClosedError,
    ConnectionEvent,
    DataType,
    InvalidRequestError,
    MarketDataBackbone,
    OrderbookData,
    TickerData,
    TradeData,
    UnknownSymbolError,
)
from upbit_backbone.qt import MarketBridge, OrderbookModel, TickerTableModel, TradesModel
from upbit_backbone.simulator import FakeUpbit

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bridge(market: MarketDataBackbone) -> Iterator[MarketBridge]:
    bridge = MarketBridge(market)
    yield bridge
    bridge.close()


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a server that accepts every connection and never says anything."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


class Turns:
    """How long the calls made through it took, at most."""

    def __init__(self) -> None:
        self.longest = 0.0

    def __call__(self, call: Callable[[], Any]) -> Any:
        before = time.perf_counter()
        result = call()
        self.longest = max(self.longest, time.perf_counter() - before)
        return result


def collected(signal: Any) -> list[Any]:
    seen: list[Any] = []
    signal.connect(seen.append)
    return seen


# What it brings


def test_tickers_arrive_on_the_gui_thread_one_by_one_and_in_one_list_a_frame(bridge: MarketBridge) -> None:
    threads: set[threading.Thread] = set()
    items, lists = collected(bridge.received), collected(bridge.received_many)
    bridge.received.connect(lambda _: threads.add(threading.current_thread()))
    live = bridge.subscribe(["KRW-BTC", "KRW-ETH"])
    own = collected(live.received)
    run_until(lambda: {item.symbol for item in items} == {"KRW-BTC", "KRW-ETH"})
    assert all(isinstance(item, TickerData) for item in items)
    assert threads == {threading.main_thread()}
    assert [item for each in lists for item in each] == items
    assert own == lists
    for each in lists:
        assert len({item.symbol for item in each}) == len(each)


def test_no_trade_is_lost_while_the_window_stands_still(bridge: MarketBridge, upbit: FakeUpbit) -> None:
    trades: list[TradeData] = collected(bridge.received)
    live = bridge.subscribe("KRW-BTC", DataType.TRADE)
    run_until(lambda: live.is_ready and trades)
    before = upbit.now_ms()
    upbit.burst("KRW-BTC", 3000)
    assert live.subscription is not None
    mailbox = live.subscription.mailbox
    wait_until(lambda: mailbox.qsize() >= 3000, "all of them wait while no event is processed")
    after = upbit.now_ms()
    made = {row["sequential_id"] for row in upbit.trades("KRW-BTC", before, after)}
    run_until(lambda: made <= {trade.sequential_id for trade in trades}, "they come in the next frames")
    ids = [trade.sequential_id for trade in trades]
    assert len(ids) == len(set(ids))


def test_an_order_book_shows_its_newest_state(bridge: MarketBridge) -> None:
    books = collected(bridge.book_changed)
    live = bridge.live_orderbook("KRW-BTC", levels=5)
    run_until(lambda: len(books) > 1)
    assert isinstance(books[-1], OrderbookData)
    assert live.book is books[-1]
    assert len(live.book.asks) <= 5
    run_until(lambda: not live.is_stale)


def test_candles_come_whole_at_first_and_then_by_what_has_changed(bridge: MarketBridge, upbit: FakeUpbit) -> None:
    live = bridge.candle_series("KRW-BTC", "1s", size=50)
    changes: list[tuple[list[Any], bool]] = []
    live.changed.connect(lambda rows, is_whole: changes.append((rows, is_whole)))
    told = collected(bridge.candles_changed)
    run_until(lambda: len(changes) > 2)
    assert changes[0][1]
    assert len(changes[0][0]) == 50
    assert not changes[1][1]
    assert 0 < len(changes[1][0]) < 10
    assert set(told) == {live}


def test_merging_the_changes_gives_what_the_series_holds(bridge: MarketBridge) -> None:
    live = bridge.candle_series("KRW-BTC", "1m", size=20)
    merged: dict[Any, Any] = {}

    def merge(rows: list[Any], is_whole: bool) -> None:
        if is_whole:
            merged.clear()
        merged.update((row.timestamp, row) for row in rows)

    live.changed.connect(merge)
    run_until(lambda: merged)
    older: list[list[Any]] = collected(live.older_loaded)
    assert live.load_older(30)
    assert not live.load_older(30)
    run_until(lambda: older)
    assert len(older[0]) == 30
    # A minute may begin meanwhile: then the oldest falls off there, and here a while later.
    run_until(lambda: [merged[start] for start in sorted(merged)][-50:] == live.candles)
    assert not live.is_loading


def test_loading_older_candles_ends_at_the_beginning_of_history(bridge: MarketBridge) -> None:
    live = bridge.candle_series("KRW-BTC", "1y", size=1)
    older = collected(live.older_loaded)
    run_until(lambda: live.is_ready)
    while not live.has_reached_start:
        count = len(older)
        assert live.load_older(100)
        run_until(lambda count=count: len(older) > count)
    assert not live.load_older(100)
    starts = [row.timestamp for row in live.candles]
    assert starts == sorted(set(starts))


# What is stale, and what has happened


def test_a_cut_line_makes_everything_stale_and_the_recovery_makes_it_live_again(
    bridge: MarketBridge, upbit: FakeUpbit
) -> None:
    stale, connected, events = map(collected, (bridge.stale_changed, bridge.connection_changed, bridge.event))
    tickers = bridge.subscribe(["KRW-BTC", "KRW-ETH"])
    book, candles = bridge.live_orderbook("KRW-BTC"), bridge.candle_series("KRW-BTC", "1m", size=5)
    everything = (tickers, book, candles)
    assert tickers.stale == {"KRW-BTC", "KRW-ETH"}
    run_until(lambda: bridge.is_connected and not any(each.is_stale for each in everything))
    upbit.handshake_fault(times=None)
    upbit.drop_sessions()
    # One market of a subscription may be stale a moment before another: each goes by its own last news.
    run_until(
        lambda: (
            not bridge.is_connected
            and all(each.is_stale for each in everything)
            and bridge.stale == {"KRW-BTC", "KRW-ETH"}
        ),
        lambda: f"all is stale: {everything}, {bridge.stale}",
    )
    run_until(lambda: any(isinstance(event, ConnectionEvent) and event.is_interruption for event in events))
    upbit.clear_faults()
    run_until(lambda: bridge.is_connected and not any(each.is_stale for each in everything) and not bridge.stale)
    assert stale[-1] == frozenset()
    assert connected[-1] is True


def test_a_bridge_made_later_knows_how_the_lines_are(market: MarketDataBackbone) -> None:
    with market.subscribe("KRW-BTC") as subscription:
        subscription.get(timeout=30)
        bridge = MarketBridge(market)
        run_until(lambda: bridge.is_connected)
        bridge.close()


# Questions


def test_an_answer_comes_to_its_own_handler_on_the_gui_thread(bridge: MarketBridge) -> None:
    answers: list[Any] = []
    answered = collected(bridge.answered)
    question = bridge.ask(
        bridge.market.get_candles,
        "KRW-BTC",
        "1m",
        count=10,
        then=lambda candles: answers.append((candles, threading.current_thread())),
        tag="chart",
    )
    assert not question.is_done
    run_until(lambda: answered)
    assert len(answers[0][0]) == 10
    assert answers[0][1] is threading.main_thread()
    assert answered == [question]
    assert (question.tag, question.answer, question.error) == ("chart", answers[0][0], None)


def test_a_cancelled_question_brings_nothing(bridge: MarketBridge) -> None:
    seen: list[Any] = []
    first = bridge.ask(bridge.market.get_candles, "KRW-BTC", then=seen.append, failed=seen.append, tag="chart")
    other = bridge.ask(bridge.market.get_candles, "KRW-ETH", then=seen.append, failed=seen.append, tag="chart")
    first.cancel()
    assert bridge.cancel("chart") == 1
    assert bridge.cancel("chart") == 0
    assert first.is_cancelled
    assert other.is_cancelled
    last: list[Any] = []
    bridge.ask(bridge.market.get_ticker, "KRW-BTC", then=last.append)
    run_until(lambda: last)
    assert seen == []


def test_a_cancelled_download_stops_asking(bridge: MarketBridge, upbit: FakeUpbit) -> None:
    seen: list[Any] = []
    begun = threading.Event()
    question = bridge.ask(
        bridge.market.get_candles,
        "KRW-BTC",
        "1m",
        count=20_000,
        progress=lambda done, total: begun.set(),
        failed=seen.append,
        then=seen.append,
    )
    run_until(begun.is_set)
    question.cancel()
    wait_until(lambda: question._future is not None and question._future.done(), "the download ends")
    assert question._future is not None
    assert "cancel" in str(question._future.exception()).lower()
    assert seen == []


@pytest.mark.parametrize("how", ["deleted", "forgotten"])
def test_an_answer_for_a_receiver_that_is_gone_is_not_delivered(bridge: MarketBridge, how: str) -> None:
    calls: list[str] = []

    class Pane(QObject):
        def show_answer(self, answer: object) -> None:
            calls.append("shown")

    pane = Pane()
    bridge.ask(bridge.market.get_ticker, "KRW-BTC", then=pane.show_answer)
    bridge.ask(bridge.market.get_ticker, "KRW-BTC", then=lambda _: calls.append("lambda"), context=pane)
    if how == "deleted":
        deleted(pane)
    else:
        del pane
        gc.collect()
    last: list[Any] = []
    question = bridge.ask(bridge.market.get_ticker, "KRW-ETH", then=last.append)
    run_until(lambda: last and question.is_done)
    run_until(lambda: not bridge._questions)
    assert calls == []


def test_a_widgets_own_slot_may_take_an_answer(bridge: MarketBridge) -> None:
    label = QLabel()
    bridge.ask(lambda: "written", then=label.setText)
    run_until(lambda: label.text() == "written")


def test_an_error_goes_to_its_handler_else_to_the_signal_else_to_the_log(
    bridge: MarketBridge, caplog: pytest.LogCaptureFixture
) -> None:
    own: list[Any] = []
    bridge.ask(bridge.market.get_ticker, "KRW-NOPE", failed=own.append)
    run_until(lambda: own)
    assert isinstance(own[0], UnknownSymbolError)
    assert caplog.records == []
    with caplog.at_level(logging.ERROR, "upbit_backbone.qt"):
        bridge.ask(bridge.market.get_ticker, "KRW-NOPE", then=own.append)
        run_until(lambda: caplog.records)
    assert len(caplog.records) == 1
    assert "KRW-NOPE" in caplog.text
    caplog.clear()
    errors = collected(bridge.failed)
    bridge.ask(bridge.market.get_ticker, "KRW-NOPE", then=own.append)
    run_until(lambda: errors)
    assert caplog.records == []
    assert len(own) == 1


# Nothing blocks


def test_nothing_blocks_against_a_server_that_never_answers(silent: str) -> None:
    timed = Turns()
    with MarketDataBackbone(url=silent) as market:
        bridge = timed(lambda: MarketBridge(market))
        opened = [
            timed(lambda: bridge.subscribe(["KRW-BTC", "KRW-ETH"], [DataType.TICKER, DataType.TRADE])),
            timed(lambda: bridge.subscribe(quote="KRW")),
            timed(lambda: bridge.live_orderbook("KRW-BTC")),
            timed(lambda: bridge.candle_series("KRW-BTC", "1m")),
        ]
        question = timed(lambda: bridge.ask(market.get_candles, "KRW-BTC", then=print))
        for _ in range(20):
            timed(bridge._turn)
        assert all(each.is_stale or not each.is_ready for each in opened)
        for each in (question.cancel, *(each.close for each in opened), bridge.close):
            timed(each)
    assert timed.longest < promised(0.5), "asking the silent server takes two seconds and more"


def test_what_was_closed_before_it_was_open_is_closed_when_it_is(market: MarketDataBackbone) -> None:
    bridge = MarketBridge(market)
    may_open, opened = threading.Event(), []

    def late(*args: Any, **options: Any) -> Any:
        may_open.wait()
        opened.append(MarketDataBackbone.subscribe(market, *args, **options))
        return opened[0]

    market.subscribe = late  # type: ignore[method-assign]
    live = bridge.subscribe("KRW-BTC")
    live.close()
    may_open.set()
    wait_until(lambda: opened and opened[0].closed, "the late one is closed")
    bridge.close()


def test_what_cannot_be_opened_for_the_network_is_tried_again(upbit: FakeUpbit) -> None:
    with MarketDataBackbone(url=upbit.url, rest_attempts=1) as market:
        bridge = MarketBridge(market)
        upbit.rest_fault(status=500, times=None)
        live = bridge.candle_series("KRW-BTC", "1m", size=5)
        errors = collected(live.failed)
        run_until(lambda: errors)
        assert not live.is_ready
        upbit.clear_faults()
        run_until(lambda: live.is_ready and live.candles)
        bridge.close()


def test_what_does_not_exist_fails_once_and_ends(bridge: MarketBridge) -> None:
    live = bridge.subscribe("KRW-NOPE")
    errors, ended = collected(live.failed), []
    live.finished.connect(lambda: ended.append(True))
    run_until(lambda: ended)
    assert isinstance(errors[0], UnknownSymbolError)
    assert len(errors) == 1
    assert not live.is_ready


def test_a_backbone_that_is_closed_ends_what_was_opened_and_says_so_to_the_next(market: MarketDataBackbone) -> None:
    bridge = MarketBridge(market)
    live, candles = bridge.subscribe("KRW-BTC"), bridge.candle_series("KRW-BTC", "1m", size=5)
    run_until(lambda: live.is_ready and candles.is_ready)
    ended: list[str] = []
    live.finished.connect(lambda: ended.append("subscription"))
    candles.finished.connect(lambda: ended.append("candles"))
    market.close()
    run_until(lambda: len(ended) == 2)
    errors = collected(bridge.failed)
    bridge.subscribe("KRW-BTC")
    bridge.ask(market.get_ticker, "KRW-BTC")
    run_until(lambda: len(errors) == 2)
    assert all(isinstance(error, ClosedError) for error in errors)
    bridge.close()
    window = QObject()
    with pytest.raises(ClosedError):
        MarketBridge(market, window)
    assert window.children() == [], "nothing is left of what could not be made"


class Window(QWidget):
    """A window as people write it, with each of our parts in it."""

    def __init__(self, market: MarketDataBackbone) -> None:
        super().__init__()
        self.bridge = MarketBridge(market, self)
        self.heard: list[Any] = []
        self.models = (TickerTableModel(parent=self), OrderbookModel(parent=self), TradesModel(parent=self))
        for model, view in zip(self.models, (QTableView(self), QTableView(self), QTableView(self)), strict=True):
            view.setModel(model)
        self.models[0].follow(self.bridge, quote="KRW")
        for model in self.models[1:]:
            model.follow(self.bridge, "KRW-BTC")
        self.candles = self.bridge.candle_series("KRW-BTC", "1m", size=20)
        for signal in (self.bridge.received_many, self.bridge.event, self.bridge.stale_changed, self.candles.changed):
            signal.connect(self.hear)
        self.bridge.ask(market.get_ticker, "KRW-BTC", then=self.hear, failed=self.hear)

    def hear(self, *news: object) -> None:
        self.heard += news

    @property
    def is_filled(self) -> bool:
        return bool(self.candles.candles) and all(model.rowCount() and model.live.is_ready for model in self.models)


def filled_window(market: MarketDataBackbone) -> Window:
    window = Window(market)
    window.show()
    run_until(lambda: window.is_filled and any(isinstance(each, TickerData) for each in window.heard))
    return window


def test_a_window_of_our_parts_is_deleted_with_its_last_reference_and_waits_for_no_garbage_collector(
    market: MarketDataBackbone,
) -> None:
    # That runs on whichever thread happens to make the next object, and only the window's own may delete it.
    gc.disable()
    try:
        window = filled_window(market)
        seen = weakref.ref(window)
        window.hide()
        del window
        assert seen() is None
    finally:
        gc.enable()


def test_it_is_released_with_its_parent(market: MarketDataBackbone) -> None:
    window = QObject()
    bridge = MarketBridge(market, window)
    live, candles = bridge.subscribe("KRW-BTC"), bridge.candle_series("KRW-BTC", "1m", size=5)
    run_until(lambda: live.is_ready and candles.is_ready)
    subscription, series = live.subscription, candles.series
    assert subscription is not None
    assert series is not None
    deleted(window)
    assert subscription.closed
    wait_until(lambda: series.closed, "the series is closed")
    assert market.get_ticker("KRW-BTC").symbol == "KRW-BTC"


def test_closing_one_of_its_subscriptions_leaves_the_others(bridge: MarketBridge) -> None:
    first, second = bridge.subscribe("KRW-BTC"), bridge.subscribe("KRW-ETH")
    run_until(lambda: first.is_ready and second.is_ready)
    first.close()
    first.close()
    items = collected(bridge.received)
    run_until(lambda: items)
    assert {item.symbol for item in items} == {"KRW-ETH"}
    assert "closed" in repr(first)
    assert "running" in repr(bridge)


def test_something_else_than_a_backbone_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="MarketDataBackbone"):
        MarketBridge("KRW-BTC")  # type: ignore[arg-type]


# The notice about blocking calls


def test_the_line_that_is_told_is_the_programs_own_also_in_a_slot_of_its(
    bridge: MarketBridge, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[Any] = []

    def show(_: object) -> None:
        done.append(bridge.market.get_candles("KRW-ETH", "3m", count=3, strategy="rest_only"))  # a line of a slot

    bridge.ask(bridge.market.get_markets, then=show)
    run_until(lambda: done)
    notices = [record.getMessage() for record in caplog.records if record.name == "upbit_backbone.qt"]
    assert len(notices) == 1
    assert "# a line of a slot" in notices[0]


def test_a_blocking_call_on_the_gui_thread_is_told_once_with_its_line(
    bridge: MarketBridge, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        bridge.market.get_candles("KRW-BTC", "1m", count=3, strategy="rest_only")  # the line that blocks
        bridge.market.forget_candles()
    notices = [record.getMessage() for record in caplog.records if record.name == "upbit_backbone.qt"]
    assert len(notices) == 1
    assert "# the line that blocks" in notices[0]
    assert f"{__file__}:" in notices[0]
    assert "get_candles() waits" in notices[0]


def test_what_does_not_block_is_not_told(bridge: MarketBridge, caplog: pytest.LogCaptureFixture) -> None:
    live = bridge.subscribe("KRW-BTC")
    run_until(lambda: not live.is_stale)
    bridge.market.explain("ticker", "KRW-BTC")
    answered = collected(bridge.answered)
    bridge.ask(bridge.market.get_markets)
    run_until(lambda: answered)
    bridge.close()
    bridge.market.close()
    assert [record for record in caplog.records if record.name == "upbit_backbone.qt"] == []


def test_after_the_bridge_has_gone_nothing_is_told(
    market: MarketDataBackbone, caplog: pytest.LogCaptureFixture
) -> None:
    MarketBridge(market).close()
    market.get_candles("KRW-BTC", "1m", count=3)
    assert [record for record in caplog.records if record.name == "upbit_backbone.qt"] == []


def test_without_logging_it_is_told_on_stderr(upbit: FakeUpbit) -> None:
    program = """
from qtpy.QtCore import QCoreApplication
from upbit_backbone import MarketDataBackbone
from upbit_backbone.qt import MarketBridge, OrderbookModel, TickerTableModel, TradesModel
app = QCoreApplication([])
with MarketDataBackbone() as market:
    bridge = MarketBridge(market)
    market.get_ticker("KRW-BTC")
    bridge.ask(market.get_ticker, "KRW-NOPE")
    while bridge._questions:
        app.processEvents()
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **upbit.environment(), "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 2, done.stderr
    assert "get_ticker() waits" in lines[0]
    assert "KRW-NOPE" in lines[1]
