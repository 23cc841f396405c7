"""The stand-in's WebSocketManager and WebSocketClient: Upbit's dicts, realtime only, and an end whenever one likes."""

from __future__ import annotations

import queue
from types import ModuleType
from typing import Any

import pytest

from tests.support.waiting import PATIENCE_SECONDS, wait_until
from upbit_backbone._concurrency import spawn
from upbit_backbone.errors import ClosedError
from upbit_backbone.simulator import FakeUpbit


def listening(upbit: FakeUpbit, kind: str) -> None:
    wait_until(lambda: kind in str(upbit.sessions()), f"a subscription of {kind}")


def first(manager: Any, upbit: FakeUpbit, price: int = 131_000_000) -> dict[str, Any]:
    """The first message, of a trade that happens once the stream is up."""
    manager.start()
    listening(upbit, manager.type)
    upbit.publish_trade("KRW-BTC", price=price, volume="0.01")
    message = manager.get(timeout=PATIENCE_SECONDS)
    while message == "ConnectionClosedError":  # told where that was asked for; a busy machine may lose the first line
        message = manager.get(timeout=PATIENCE_SECONDS)
    assert isinstance(message, dict)
    return message


TICKER = (
    "type code opening_price high_price low_price trade_price prev_closing_price acc_trade_price change "
    "change_price signed_change_price change_rate signed_change_rate ask_bid trade_volume "
    "acc_trade_volume trade_date trade_time trade_timestamp acc_ask_volume acc_bid_volume "
    "highest_52_week_price highest_52_week_date lowest_52_week_price lowest_52_week_date market_state "
    "is_trading_suspended delisting_date market_warning timestamp acc_trade_price_24h "
    "acc_trade_volume_24h stream_type"
)
TRADE = (
    "type code timestamp trade_date trade_time trade_timestamp trade_price trade_volume ask_bid "
    "prev_closing_price change change_price sequential_id best_ask_price best_ask_size best_bid_price "
    "best_bid_size stream_type"
)
BOOK = "type code timestamp total_ask_size total_bid_size orderbook_units stream_type level"
CANDLE = (
    "type code candle_date_time_utc candle_date_time_kst opening_price high_price low_price trade_price "
    "candle_acc_trade_volume candle_acc_trade_price timestamp stream_type"
)


@pytest.mark.parametrize(
    ("kind", "keys"), [("ticker", TICKER), ("trade", TRADE), ("orderbook", BOOK), ("candle.1m", CANDLE)]
)
def test_a_message_is_upbits_dict_key_by_key(pyupbit: ModuleType, upbit: FakeUpbit, kind: str, keys: str) -> None:
    with pyupbit.WebSocketManager(kind, ["KRW-BTC"]) as manager:
        message = first(manager, upbit)
    assert list(message) == keys.split()
    assert (message["type"], message["code"], message["stream_type"]) == (kind, "KRW-BTC", "REALTIME")
    numbers = [value for name, value in message.items() if name.endswith(("price", "volume", "size", "rate"))]
    assert {type(number) for number in numbers} <= {float}
    assert type(message["timestamp"]) is int


def test_only_what_happens_from_now_on_comes(pyupbit: ModuleType, upbit: FakeUpbit) -> None:
    with pyupbit.backbone().subscribe("KRW-BTC", "ticker") as other:
        other.get(timeout=PATIENCE_SECONDS)  # so that a present value is known
        with pyupbit.WebSocketManager("ticker", ["KRW-BTC"]) as manager:
            assert first(manager, upbit, price=132_123_000)["trade_price"] == 132_123_000.0


def test_a_book_has_as_many_levels_as_its_code_says(pyupbit: ModuleType, upbit: FakeUpbit) -> None:
    with pyupbit.WebSocketManager("orderbook", ["KRW-BTC.5"]) as manager:
        manager.start()
        listening(upbit, "orderbook")
        upbit.touch_book("KRW-BTC")
        assert len(manager.get(timeout=PATIENCE_SECONDS)["orderbook_units"]) == 5


def test_its_life_is_that_of_a_process(pyupbit: ModuleType, upbit: FakeUpbit) -> None:
    manager = pyupbit.WebSocketManager(type="trade", codes=["KRW-BTC"], qsize=10)
    assert (manager.type, manager.codes, manager.alive, manager.is_alive()) == ("trade", ["KRW-BTC"], False, False)
    first(manager, upbit)
    assert (manager.alive, manager.is_alive(), manager.exitcode) == (True, True, None)
    with pytest.raises(queue.Empty):
        manager.get(timeout=0.01)
    manager.terminate()
    manager.terminate()
    manager.join()
    assert (manager.alive, manager.is_alive(), manager.exitcode) == (False, False, 0)
    with pytest.raises(ClosedError, match="make a new one"):
        manager.get()


def test_it_may_be_terminated_before_it_began(pyupbit: ModuleType) -> None:
    manager = pyupbit.WebSocketManager("ticker", ["KRW-BTC"])
    manager.terminate()
    manager.join(0)
    assert not manager.is_alive()


def test_terminating_ends_a_get_and_a_loop_in_other_threads(pyupbit: ModuleType, upbit: FakeUpbit) -> None:
    manager, ended = pyupbit.WebSocketManager("trade", ["KRW-BTC"]), queue.SimpleQueue[str]()
    first(manager, upbit)

    def take() -> None:
        try:
            while True:
                manager.get()
        except ClosedError:
            ended.put("get")

    def loop() -> None:
        for _ in manager:
            pass
        ended.put("loop")

    threads = [spawn(take, "take"), spawn(loop, "loop")]
    manager.terminate()
    assert {ended.get(timeout=PATIENCE_SECONDS) for _ in threads} == {"get", "loop"}
    for thread in threads:
        thread.join(PATIENCE_SECONDS)


def test_one_text_is_one_market(pyupbit: ModuleType, upbit: FakeUpbit) -> None:
    with pyupbit.WebSocketManager("trade", "KRW-BTC") as manager:
        assert first(manager, upbit)["code"] == "KRW-BTC"


def test_unknown_markets_are_left_out_and_nothing_but_such_raises(pyupbit: ModuleType, upbit: FakeUpbit) -> None:
    with pyupbit.WebSocketManager("trade", ["KRW-NOSUCH", "KRW-BTC"]) as manager:
        assert first(manager, upbit)["code"] == "KRW-BTC"
    with pyupbit.WebSocketManager("trade", ["KRW-NOSUCH"]) as manager, pytest.raises(pyupbit.errors.UpbitError):
        manager.get()
    with pyupbit.WebSocketManager("tickers", ["KRW-BTC"]) as manager, pytest.raises(pyupbit.errors.UpbitError):
        manager.get()


@pytest.mark.parametrize("tells", [False, True])
def test_a_broken_line_is_restored_and_told_only_to_those_who_ask(
    pyupbit: ModuleType, upbit: FakeUpbit, tells: bool
) -> None:
    with pyupbit.WebSocketManager("trade", ["KRW-BTC"], tell_interruptions=tells) as manager:
        first(manager, upbit)
        lines = {each["id"] for each in upbit.sessions()}
        upbit.close_sessions(1001)
        wait_until(
            lambda: any(each["id"] not in lines and each["subscriptions"] for each in upbit.sessions()), "a line"
        )
        upbit.publish_trade("KRW-BTC", price=131_500_000, volume="0.02")
        # In any order: events come on a thread of their own. A busy machine may lose the new line as well.
        trades: list[float] = []
        told: list[str] = []
        while not trades or (tells and not told):
            message = manager.get(timeout=PATIENCE_SECONDS)
            if isinstance(message, str):
                told.append(message)
            else:
                trades.append(message["trade_price"])
    assert trades == [131_500_000.0]
    assert bool(told) is tells


def test_a_client_fills_a_queue_from_within_its_constructor(pyupbit: ModuleType, upbit: FakeUpbit) -> None:
    messages = queue.SimpleQueue[Any]()
    thread = spawn(lambda: pyupbit.WebSocketClient("trade", ["KRW-BTC"], messages), "client")
    listening(upbit, "trade")
    upbit.publish_trade("KRW-BTC", price=131_000_000, volume="0.01")
    assert messages.get(timeout=PATIENCE_SECONDS)["code"] == "KRW-BTC"
    pyupbit.backbone().close()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
