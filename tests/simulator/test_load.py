"""Load mode: fast, well-formed, with rising times and ids."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from upbit_backbone.simulator import FakeUpbit
from upbit_backbone.simulator.serving.load import SIZES_CHANGED

Connect = Callable[..., Any]


@pytest.mark.parametrize("name", ["DEFAULT", "SIMPLE", "JSON_LIST"])
def test_made_up_frames_are_what_was_subscribed(upbit: FakeUpbit, connect: Connect, name: str) -> None:
    stream = connect(upbit)
    types = ["ticker", "trade", "orderbook"]
    stream.ask(*({"type": one, "codes": ["KRW-BTC", "BTC-ETH"]} for one in types), {"format": name})
    for _ in range(6):
        stream.read()
    upbit.load(2_000)
    messages = [stream.read() for _ in range(600)]
    upbit.load(0)
    flat = [one[0] if isinstance(one, list) else one for one in messages]
    kinds, codes, ids = ("ty", "cd", "sid") if name == "SIMPLE" else ("type", "code", "sequential_id")
    assert {(one[kinds], one[codes]) for one in flat} == {(t, c) for t in types for c in ("KRW-BTC", "BTC-ETH")}
    stamps = [one["tms" if name == "SIMPLE" else "timestamp"] for one in flat]
    assert stamps == sorted(stamps)
    assert len({one[ids] for one in flat if ids in one}) == 200


def test_twenty_thousand_messages_a_second(connect: Connect) -> None:
    with FakeUpbit(trades_per_second=0, markets=60) as upbit:
        stream = connect(upbit)
        stream.ask({"type": "trade", "codes": upbit.markets()}, {"type": "ticker", "codes": upbit.markets()})
        upbit.load(20_000)
        raw, end, received = stream.socket.sock, time.monotonic() + 1.5, 0
        while time.monotonic() < end:
            received += len(raw.recv(1 << 20))
        counters = upbit.counters()
    assert received > 5_000_000
    assert counters["load_sent"] > 20_000
    assert counters["load_skipped"] == 0


def test_stamped_ids_tell_when_a_trade_was_sent(upbit: FakeUpbit, connect: Connect) -> None:
    stream = connect(upbit)
    stream.ask({"type": "trade", "codes": ["KRW-BTC"]})
    stream.read()
    before = time.monotonic_ns()
    upbit.load(500, tick=0.002, stamped_ids=True)
    ids = [stream.read()["sequential_id"] for _ in range(100)]
    upbit.load(0)
    assert before <= ids[0] - 10**16 <= ids[-1] - 10**16 <= time.monotonic_ns()
    assert len(set(ids)) == 100


def test_a_busy_market_reaches_the_client_complete(connect: Connect) -> None:
    with FakeUpbit(seed=5, trades_per_second=0, markets=20) as upbit:
        codes = upbit.markets()
        stream = connect(upbit)
        stream.ask({"type": "trade", "codes": codes, "is_only_realtime": True}, {"type": "ticker", "codes": codes[:1]})
        stream.read()
        upbit.set_rate(500)
        seen = [stream.read_until(lambda one: one["type"] == "trade") for _ in range(300)]
        upbit.pause()
        upbit.publish_trade("KRW-BTC", volume="7.7777")
        seen.append(stream.read_until(lambda one: one["type"] == "trade"))
        while seen[-1]["code"] != "KRW-BTC" or json.dumps(str(seen[-1]["trade_volume"])) != '"7.77770000"':
            seen.append(stream.read_until(lambda one: one["type"] == "trade"))
        for code in codes:
            expected = [row["sequential_id"] for row in upbit.trades(code)]
            assert [one["sequential_id"] for one in seen if one["code"] == code] == expected


@pytest.mark.parametrize("name", ["SIMPLE", "DEFAULT"])
def test_a_few_sizes_of_a_book_change_from_one_frame_to_the_next(connect: Connect, name: str) -> None:
    with FakeUpbit(trades_per_second=0) as upbit:
        stream = connect(upbit)
        stream.ask({"type": "orderbook", "codes": ["KRW-BTC"]}, {"format": name})
        stream.read()
        upbit.load(500)
        books = [stream.read()["obu" if name == "SIMPLE" else "orderbook_units"] for _ in range(20)]
    first, *others = [[number for level in book for number in level.values()] for book in books]
    for other in others:
        assert sum(one != two for one, two in zip(first, other, strict=True)) == SIZES_CHANGED
