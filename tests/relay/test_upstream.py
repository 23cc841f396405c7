"""A backbone that is fed by a relay: the same answers, whose freshness is proven to Upbit, and what it does when the
relay or its Redis server fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.chaos.proxy import ChaosProxy
from tests.relay.conftest import MARKETS
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until
from upbit_backbone import (
    CandleData,
    DataSource,
    DataType,
    GapEvent,
    HealthStatus,
    MarketDataBackbone,
    OrderbookData,
    TickerData,
    TradeData,
    UpstreamEvent,
)
from upbit_backbone.backbone import parts_of
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.exchange.fields import Spelling
from upbit_backbone.models.request import Topic
from upbit_backbone.relay import Relay
from upbit_backbone.relay.relay import ASKED_OF_UPBIT
from upbit_backbone.simulator import FakeUpbit
from upbit_backbone.unify.writer import encode_frame
from upbit_backbone.upstream import relay_connection
from upbit_backbone.upstream.stream_history import trade_of

TICKER, TRADE, ORDERBOOK = DataType.TICKER, DataType.TRADE, DataType.ORDERBOOK
Start = Callable[..., Relay]
Open = Callable[..., MarketDataBackbone]


@pytest.fixture
def things() -> Iterator[ExitStack]:
    with ExitStack() as things:
        yield things


@pytest.fixture
def start(things: ExitStack, upbit: FakeUpbit, server: RedisServer) -> Start:
    """A relay with a backbone of its own, as in a process of its own."""

    def start_one(types: Any = (TICKER, TRADE), markets: Any = MARKETS, **options: Any) -> Relay:
        market = MarketDataBackbone(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url)
        things.enter_context(market)
        return things.enter_context(Relay(market, server.url, markets, types, **options))

    return start_one


@pytest.fixture
def client(things: ExitStack, upbit: FakeUpbit, server: RedisServer) -> Open:
    """A backbone that a relay feeds."""

    def open_one(url: str | None = None, **settings: Any) -> MarketDataBackbone:
        addresses = {"rest_url": upbit.rest_url, "websocket_url": upbit.websocket_url}
        return things.enter_context(MarketDataBackbone(upstream=url or server.url, **addresses, **settings))

    return open_one


class Trades:
    """The trades that a subscription gave, and whether they are all that the simulator made, each once."""

    def __init__(self, things: ExitStack, market: MarketDataBackbone, upbit: FakeUpbit) -> None:
        self._upbit = upbit
        self.got: list[TradeData] = []
        name = market.subscribe_realtime("KRW-BTC", TRADE, self.got.append)
        things.callback(market.unsubscribe, name)
        wait_until(lambda: self.got, "a trade")

    def more(self, count: int = 20) -> None:
        enough = len(self.got) + count
        wait_until(lambda: len(self.got) >= enough, f"{count} more trades")

    def check(self) -> None:
        """Every trade between the first and the last that came, and once."""
        first = self.got[0].timestamp
        last = max(trade.timestamp for trade in self.got)
        times = [round(moment.timestamp() * 1000) for moment in (first, last)]
        made = {each["sequential_id"] for each in self._upbit.trades("KRW-BTC", times[0] + 1, times[1] - 1)}
        assert made
        wait_until(lambda: made <= {trade.sequential_id for trade in list(self.got)}, "every trade")
        numbers = [trade.sequential_id for trade in list(self.got)]
        assert len(set(numbers)) == len(numbers)


# --- the same answers ---


def test_all_that_is_streamed_comes_from_the_relay_and_says_so(start: Start, client: Open, upbit: FakeUpbit) -> None:
    kinds = [TICKER, TRADE, ORDERBOOK, DataType.CANDLE_1M]
    start(kinds)
    market = client()
    found: set[type[Any]] = set()
    with market.subscribe("KRW-BTC", kinds) as subscription:
        while found != {TickerData, TradeData, OrderbookData, CandleData}:
            item = subscription.get(timeout=30)
            if item.source is DataSource.RELAY:
                found.add(type(item))
    wait_until(lambda: len(upbit.sessions()) == 1, "the relay's is the only line")
    assert len(upbit.subscribed()) == 8


def test_a_question_is_answered_by_what_the_relay_streams(
    start: Start, client: Open, upbit: FakeUpbit, server: RedisServer
) -> None:
    start(TICKER)
    market = client()
    with market.subscribe(MARKETS, TICKER):
        wait_until(lambda: market.get_ticker("KRW-BTC").source is DataSource.RELAY, "a live price")
        wait_until(lambda: market.explain("ticker", "KRW-BTC").rule == "live", "it is said to be live")
        wait_until(lambda: market.health().status is HealthStatus.HEALTHY, "all is well")
        health = market.health()
        assert health.upstream == f"Redis at {server.socket}"
        assert f"streams come from Redis at {server.socket}" in str(health)
        # The last price of a market that nobody trades is current as long as the relay proves it.
        upbit.pause()
        for _ in range(3):
            heard = server.client.hget("{upbit}:status", "heartbeat")
            wait_until(lambda heard=heard: server.client.hget("{upbit}:status", "heartbeat") != heard, "a heartbeat")
        wait_until(lambda: market.get_ticker("KRW-BTC").source is DataSource.RELAY, "the last price, proven")


@pytest.mark.slow
def test_what_the_relay_does_not_stream_it_is_asked_for_until_nobody_wants_it(
    start: Start, client: Open, upbit: FakeUpbit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_connection, "DEMAND_SECONDS", 1.0)
    start(TICKER, "KRW-BTC")
    assert upbit.subscribed() <= {("ticker", "KRW-BTC")}
    market = client()
    with market.subscribe("KRW-ETH", [TRADE, ORDERBOOK], level=10_000) as subscription:
        found = {type(subscription.get(timeout=30)) for _ in range(20)}
        assert ("trade", "KRW-ETH") in upbit.subscribed()
        wait_until(lambda: OrderbookData in found or found.add(type(subscription.get(timeout=30))), "a grouped book")
    market.close()
    wait_until(lambda: upbit.subscribed() == {("ticker", "KRW-BTC")}, "the relay drops it")


def test_a_market_that_does_not_exist_is_not_asked_of_upbit(
    start: Start, server: RedisServer, upbit: FakeUpbit
) -> None:
    relay = start(TICKER)
    for name in ("ticker:KRW-NONE", "ticker:krw-btc", "nonsense", "orderbook:KRW-BTC@x", "trade:KRW-BTC"):
        server.client.zadd("{upbit}:demand", {name: 9e15})
    wait_until(lambda: ("trade", "KRW-BTC") in upbit.subscribed(), "what can be streamed is")
    assert {code for _, code in upbit.subscribed()} == set(MARKETS)
    assert relay.stats.error is None


def test_a_relay_that_a_relay_feeds_carries_its_streams_on(
    start: Start, client: Open, upbit: FakeUpbit, server: RedisServer, things: ExitStack
) -> None:
    start()
    things.enter_context(Relay(client(), server.url, MARKETS, [TICKER, TRADE], prefix="leaf"))
    market = client(upstream_prefix="leaf")
    trades = Trades(things, market, upbit)
    wait_until(lambda: trades.got[-1].source is DataSource.RELAY, "trades from the relay")
    trades.more()
    trades.check()
    first, leaf = (
        {fields["data"] for _, fields in server.client.xrange(f"{{{prefix}}}:stream:trade:KRW-BTC")}
        for prefix in ("upbit", "leaf")
    )
    assert first & leaf, "the very bytes that Upbit sent"
    with market.subscribe(MARKETS, TICKER) as subscription:
        wait_until(lambda: not market.stale_symbols(subscription), "all is current, proven to Upbit and back")
    wait_until(lambda: len(upbit.sessions()) == 1, "the first relay's is the only line")


# --- proven to Upbit ---


def test_what_the_relay_cannot_prove_is_no_current_price(start: Start, client: Open, upbit: FakeUpbit) -> None:
    start(TICKER)
    market = client()
    with market.subscribe(MARKETS, TICKER) as subscription:
        wait_until(lambda: not market.stale_symbols(subscription), "all is current")
        upbit.handshake_fault(times=None)  # the relay's line: this backbone has none
        upbit.close_sessions()
        wait_until(lambda: market.stale_symbols(subscription) == set(MARKETS), "nothing is")
        wait_until(lambda: market.get_ticker("KRW-BTC").source is DataSource.REST, "a price from REST")
        upbit.clear_faults()
        wait_until(lambda: not market.stale_symbols(subscription), "all is current again")
        wait_until(lambda: market.get_ticker("KRW-BTC").source is DataSource.RELAY, "a live price")


@pytest.mark.slow
def test_behind_a_line_that_went_mute_no_price_is_current(
    start: Start, client: Open, server: RedisServer, things: ExitStack
) -> None:
    start(TICKER)
    proxy = things.enter_context(ChaosProxy(str(server.socket)))
    market = client(f"redis://{proxy.address[0]}:{proxy.address[1]}")
    with market.subscribe(MARKETS, TICKER) as subscription:
        wait_until(lambda: not market.stale_symbols(subscription), "all is current")
        proxy.blackhole()
        proxy.freeze()
        wait_until(lambda: market.stale_symbols(subscription) == set(MARKETS), "nothing is")
        wait_until(lambda: market.get_ticker("KRW-BTC").source is not DataSource.RELAY, "another price")
        wait_until(lambda: market.health().upstream == "Upbit", "the way to Upbit itself")
        wait_until(lambda: market.get_ticker("KRW-BTC").source is DataSource.WEBSOCKET, "a live price from there")


def test_whether_silence_means_anything_is_asked_of_who_else_has_a_line_and_not_of_rest(
    start: Start, client: Open, upbit: FakeUpbit, server: RedisServer, things: ExitStack
) -> None:
    relays = [start(), start()]
    market = client()
    topics = frozenset(Topic(kind, symbol) for kind in (TICKER, TRADE) for symbol in MARKETS)
    things.enter_context(market.subscribe(MARKETS, [TICKER, TRADE]))
    leader, other = sorted(relays, key=lambda relay: not relay.is_leading)
    everybody = [market._parts, parts_of(other._market), parts_of(leader._market)]
    wait_until(lambda: all(parts.store.entry(topic) for parts in everybody for topic in topics), "all has come to all")
    upbit.pause()

    def told() -> list[str]:
        return [server.client.get(key) or "null" for key in ("{upbit}:seen", "{upbit}:seen-by-others")]

    wait_until(lambda: "null" not in "".join(told()), "both relays have told of all")
    wait_until(lambda: all(parts.probe(topics) == frozenset() for parts in everybody), "all have seen the same")
    leader._questions = 0
    had = len(upbit.requests("/v1/ticker"))
    what_lacks = Topic(TICKER, "KRW-BTC"), Topic(TICKER, "KRW-ETH"), Topic(TRADE, "KRW-BTC")
    # Of each another topic, because who tells what he has seen tells nothing of what he lacks.
    for parts, lacking in zip(everybody, what_lacks, strict=True):
        parts.store.forget(lacking)
        assert parts.probe(topics) == {lacking}
    assert len(upbit.requests("/v1/ticker")) == had
    # Two lines may be wrong together: now and then the one that leads asks Upbit all the same.
    for _ in range(ASKED_OF_UPBIT):
        parts_of(leader._market).probe(topics)
    assert len(upbit.requests("/v1/ticker")) > had


# --- a relay, or a server, that fails ---


@pytest.mark.slow
def test_without_redis_streams_come_from_upbit_and_go_back_by_themselves(
    start: Start, client: Open, upbit: FakeUpbit, server: RedisServer, things: ExitStack
) -> None:
    start()
    market = client()
    events: list[Any] = []
    things.callback(market.on_event(events.append).close)
    trades = Trades(things, market, upbit)
    wait_until(lambda: trades.got[-1].source is DataSource.RELAY, "trades from the relay")
    trades.more()
    server.kill()
    wait_until(lambda: trades.got[-1].source is DataSource.WEBSOCKET, "trades from Upbit")
    health = market.health()
    assert health.status is HealthStatus.DEGRADED
    assert any(reason.startswith("upstream: connected to Upbit directly") for reason in health.reasons)
    trades.more()
    server.start()
    wait_until(lambda: trades.got[-1].source is DataSource.RELAY, "trades from the relay")
    trades.more()
    trades.check()
    told = [(each.direct, each.upstream) for each in events if isinstance(each, UpstreamEvent)]
    assert told[0] == (True, f"Redis at {server.socket}")
    assert told[-1] == (False, f"Redis at {server.socket}")
    wait_until(lambda: market.health().status is HealthStatus.HEALTHY, "health says so")


@pytest.mark.slow
def test_when_the_relay_that_leads_ends_another_feeds_on(
    start: Start, client: Open, upbit: FakeUpbit, things: ExitStack
) -> None:
    first, second = start(), start()
    market = client()
    trades = Trades(things, market, upbit)
    trades.more()
    first.close()
    wait_until(lambda: second.is_leading, "the second leads")
    trades.more(60)
    trades.check()


@pytest.mark.parametrize("kept", [10_000, 100])
def test_a_program_that_was_away_reads_what_it_missed_from_the_relays_streams(
    start: Start, client: Open, upbit: FakeUpbit, server: RedisServer, kept: int
) -> None:
    start(TRADE, kept=kept)
    events: list[Any] = []
    first = client()
    with first.subscribe("KRW-BTC", TRADE) as trades:
        had = [trades.get(timeout=30) for _ in range(5)]
        wait_until(lambda: had[-1].source is DataSource.RELAY or had.append(trades.get(timeout=30)), "the relay's")
        position = trades.position
    first.close()
    upbit.burst("KRW-BTC", 1_500)
    upbit.pause()
    newest = upbit.publish_trade("KRW-BTC")["sequential_id"]
    stream = "{upbit}:stream:trade:KRW-BTC"
    wait_until(lambda: server.client.xrevrange(stream, count=1)[0][1]["id"] == str(newest), "all is there")
    asked = len(upbit.requests("/v1/trades/ticks"))
    with client().subscribe("KRW-BTC", TRADE, since=position, on_event=events.append) as trades:
        found = [trades.get(timeout=30)]
        while found[-1].sequential_id != newest:
            found.append(trades.get(timeout=30))
        wait_until(lambda: any(isinstance(each, GapEvent) for each in events), "the receipt")
    made = upbit.trades("KRW-BTC", round(had[-1].timestamp.timestamp() * 1000) - 2_000)
    numbers = [each["sequential_id"] for each in made]
    # What is behind the cap is asked of REST, and no more than that.
    assert [each.sequential_id for each in found] == numbers[numbers.index(had[-1].sequential_id) + 1 :]
    assert all(each.complete for each in events if isinstance(each, GapEvent))
    assert (len(upbit.requests("/v1/trades/ticks")) > asked) == (kept == 100)


def test_who_comes_new_begins_with_the_newest_trade_though_an_older_one_came_into_the_stream_after_it(
    start: Start, client: Open, upbit: FakeUpbit, server: RedisServer
) -> None:
    start(TRADE)
    upbit.pause()
    newest = upbit.publish_trade("KRW-BTC")["sequential_id"]
    stream = "{upbit}:stream:trade:KRW-BTC"

    def last() -> dict[str, str]:
        return dict(next(iter(server.client.xrevrange(stream, count=1)), (None, {}))[1])

    wait_until(lambda: last().get("id") == str(newest), "all is there")
    # As where a relay has begun with a snapshot and then reads what came a moment before it.
    trade = trade_of(last()["data"].encode(), datetime.now(UTC))
    assert trade is not None
    older = replace(trade, timestamp=trade.timestamp - timedelta(milliseconds=1), sequential_id=newest - 1)
    server.client.xadd(stream, {"id": str(older.sequential_id), "data": encode_frame(older, Spelling.SIMPLE)})
    with client().subscribe("KRW-BTC", TRADE) as trades:
        assert trades.get(timeout=30).sequential_id == newest


def test_when_another_relay_leads_all_is_shown_anew(start: Start, client: Open, server: RedisServer) -> None:
    start(TICKER)
    market = client()
    with market.subscribe(MARKETS, TICKER) as subscription:
        wait_until(lambda: not market.stale_symbols(subscription), "all is current")
        server.client.publish("{upbit}:live", '1 {"stale": [], "lag": 0.0}')
        wait_until(lambda: any(each.reconnects for each in market.health().sessions), "another connection")
        wait_until(lambda: not market.stale_symbols(subscription), "all is current again")
        assert market.health().upstream == f"Redis at {server.socket}"


def test_a_relay_that_begins_later_is_found(start: Start, client: Open, server: RedisServer) -> None:
    market = client()
    with market.subscribe(MARKETS, TICKER) as subscription:
        assert subscription.get(timeout=30).source is DataSource.WEBSOCKET
        assert "no relay has published under the prefix 'upbit'" in " ".join(market.health().reasons)
        start(TICKER)
        wait_until(lambda: subscription.get(timeout=30).source is DataSource.RELAY, "what the relay streams")


@pytest.mark.slow
def test_a_connection_that_is_cut_costs_no_trade(
    start: Start, client: Open, upbit: FakeUpbit, server: RedisServer, things: ExitStack
) -> None:
    start()
    market = client()
    trades = Trades(things, market, upbit)
    for _ in range(2):
        trades.more()
        server.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    trades.more(40)
    trades.check()


# --- what is not ours, and what is secret ---


@pytest.mark.parametrize("found", ["upbit-backbone relay 1", "somebody else's"])
def test_keys_of_another_version_are_refused_by_name_and_left_alone(
    client: Open, server: RedisServer, found: str
) -> None:
    server.client.set("{upbit}:schema", found)
    market = client()
    with market.subscribe("KRW-BTC", TICKER) as subscription:
        assert subscription.get(timeout=30).source is DataSource.WEBSOCKET
        assert found in " ".join(market.health().reasons)
    assert server.client.keys("*") == ["{upbit}:schema"]


def test_what_others_publish_is_checked_like_any_message(start: Start, client: Open, server: RedisServer) -> None:
    start(TICKER)
    market = client()
    with market.subscribe("KRW-BTC", TICKER) as subscription:
        wait_until(lambda: subscription.get(timeout=30).source is DataSource.RELAY, "what the relay streams")
        for poison in ("", "{", '{"ty":"ticker","cd":"KRW-BTC","tp":"NaN"}', "\x00" * 100):
            server.client.publish("{upbit}:live:ticker:KRW-BTC", poison)
        wait_until(lambda: sum(each.malformed for each in market.health().sessions) == 4, "they are counted")
        wait_until(lambda: subscription.get(timeout=30).source is DataSource.RELAY, "what the relay streams")
        server.client.publish("{upbit}:live:ticker:KRW-BTC", "x" * 1_100_000)
        server.client.publish("{upbit}:live", "no heartbeat")
        wait_until(lambda: any(each.reconnects for each in market.health().sessions), "the line is given up")
        wait_until(lambda: market.get_ticker("KRW-BTC").source is DataSource.RELAY, "and made anew")


def test_a_user_who_may_only_read_and_ask_is_enough(
    start: Start, client: Open, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    start()
    rights = "+client +ping +subscribe +unsubscribe +get +hget +xrevrange +time +zadd"
    server.client.execute_command(
        "ACL", "SETUSER", "reader", "on", ">geheim", "%R~{upbit}:*", "%RW~{upbit}:demand", "&{upbit}:*", *rights.split()
    )
    market = client(f"unix://reader:geheim@{server.socket}")
    with market.subscribe(MARKETS, [TICKER, TRADE]) as subscription:
        wait_until(lambda: subscription.get(timeout=30).source is DataSource.RELAY, "what the relay streams")
        assert "geheim" not in repr(market) + repr(market.config) + str(market.health()) + market.health().to_json()
    wrong = client(f"unix://reader:ganz-geheim@{server.socket}")
    with wrong.subscribe("KRW-BTC", TICKER) as subscription:
        assert subscription.get(timeout=30).source is DataSource.WEBSOCKET
        assert "refuses the user or password" in " ".join(wrong.health().reasons)
        assert "geheim" not in str(wrong.health())
    assert "geheim" not in caplog.text


@pytest.mark.parametrize("url", ["http://user:geheim@host", "redis://:geheim@host:99999", "geheim"])
def test_what_is_no_url_of_redis_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        MarketDataBackbone(upstream=url)
    assert "geheim" not in str(refused.value)
    with pytest.raises(InvalidRequestError, match="prefix"):
        MarketDataBackbone(upstream="redis://localhost", upstream_prefix="with space")
