"""What comes through a connection to a relay, frame by frame, where the test itself is the relay."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until
from upbit_backbone import DataSource, DataType, TradeData
from upbit_backbone._concurrency import Deadline, Flag
from upbit_backbone.exchange.fields import Spelling
from upbit_backbone.models.enums import StreamType
from upbit_backbone.models.request import Topic
from upbit_backbone.unify.writer import encode_frame
from upbit_backbone.upstream.relay_connection import RelayConnection, RelayTransport
from upbit_backbone.upstream.stream_history import trade_frame, trade_of, traded_at
from upbit_backbone.wire.relay_keys import SCHEMA, Keys

KEYS = Keys()
TRADES = Topic(DataType.TRADE, "KRW-BTC")
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
HEARTBEAT = '1 {"stale": [], "lag": 0.0}'


def trade(number: int) -> TradeData:
    moment = NOON + timedelta(seconds=number)
    return TradeData("KRW-BTC", Decimal(1), Decimal(1), "BID", moment, number, DataSource.WEBSOCKET)


@pytest.fixture
def connection(server: RedisServer) -> Iterator[RelayConnection]:
    """Of a program to which trade 1 was the last that came, whatever way."""
    server.client.set(KEYS.schema, SCHEMA)
    server.client.set(KEYS.leader, "1 relay")
    transport = RelayTransport(server.url, KEYS.prefix, last_of=lambda topic: trade(1), doubt=lambda topics: None)
    connection = transport.open(Deadline.after(30), stop=Flag())
    yield connection
    connection.close()


def subscribe(connection: RelayConnection) -> None:
    connection.send_text(json.dumps([{"ticket": "t"}, {"type": "trade", "codes": ["KRW-BTC"]}, {"format": "SIMPLE"}]))


def publish(server: RedisServer, *numbers: int, is_told: bool = False) -> None:
    for number in numbers:
        data = encode_frame(trade(number), Spelling.SIMPLE)
        server.client.xadd(KEYS.stream(TRADES), {"id": number, "data": data})
        if is_told:
            server.client.publish(KEYS.live(TRADES), data)


def take(connection: RelayConnection, until: int) -> list[int]:
    """The numbers of the trades that come, up to `until`."""
    came = bytearray()

    def found() -> list[int]:
        came.extend(connection.recv() or b"")
        return [int(number) for number in re.findall(rb'"sid":(-?\d+)', bytes(came))]

    return wait_until(lambda: numbers if until in (numbers := found()) else None, f"trade {until}")


@pytest.mark.parametrize(("told", "expected"), [((1, 2), [1, 2, 3]), ((2,), [3])])
def test_who_returns_to_a_redis_that_lost_its_memory_goes_on_where_he_was_once_the_relay_has_told_what_it_had(
    connection: RelayConnection, server: RedisServer, told: tuple[int, ...], expected: list[int]
) -> None:
    subscribe(connection)  # there is nothing yet
    publish(server, *told)
    publish(server, 3, is_told=True)
    server.client.publish(KEYS.pulse, HEARTBEAT)
    assert take(connection, until=3) == expected
    publish(server, 4, is_told=True)
    assert take(connection, until=4) == [4]


def test_who_finds_his_place_at_once_waits_for_nothing(connection: RelayConnection, server: RedisServer) -> None:
    publish(server, 0, 1, 2)
    subscribe(connection)
    publish(server, 3, is_told=True)
    assert take(connection, until=3) == [1, 0, 2, 3]


def test_of_what_was_before_the_last_one_that_came_only_what_it_may_have_overtaken_comes_again(
    connection: RelayConnection, server: RedisServer
) -> None:
    """What is older was had; a quiet market's may be older than what anybody remembers to tell it from news."""
    publish(server, *range(-70, 3))
    subscribe(connection)
    assert take(connection, until=2) == [1, -1, 0, 2]


@pytest.mark.parametrize("kind", list(StreamType))
def test_what_comes_again_says_in_which_way_it_comes_and_else_the_very_same(kind: StreamType) -> None:
    came = encode_frame(replace(trade(1), stream_type=StreamType.SNAPSHOT), Spelling.SIMPLE)
    again = trade_of(trade_frame(came, kind), NOON)
    assert again == replace(trade(1), stream_type=kind, source=DataSource.RELAY)
    assert again is not None
    assert again.received_at == NOON
    within = rb'{"ty":"trade","cd":"\"st\":\"REALTIME\"","st":"REALTIME"}'
    assert trade_frame(within, kind) == within[: -len('REALTIME"}')] + b'%b"}' % kind.value.encode()


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"\xff", b'{"ty":"ticker","cd":"KRW-BTC"}', b'{"ty":"trade"}', b"1" * 9]
)
def test_an_entry_that_is_no_trade_is_none_and_was_traded_before_everything(data: bytes) -> None:
    assert trade_of(data, NOON) is None
    assert traded_at(data) == float("-inf")
    assert traded_at(encode_frame(trade(1), Spelling.SIMPLE)) == trade(1).timestamp.timestamp()
