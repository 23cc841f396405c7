"""What a relay publishes into a real Redis server, and who publishes when there are several."""

from __future__ import annotations

import gc
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
import redis

from tests.relay.conftest import MARKETS, RedisServer
from tests.support.site import DOCS, load
from tests.support.waiting import wait_until
from upbit_backbone import (
    CandleData,
    DataSource,
    DataType,
    DataUnifier,
    MarketDataBackbone,
    OrderbookData,
    TickerData,
    TradeData,
)
from upbit_backbone._concurrency import Flag
from upbit_backbone.channels import market_watch
from upbit_backbone.errors import AuthenticationError, InvalidRequestError, NetworkError
from upbit_backbone.relay import Relay
from upbit_backbone.relay.tail import OLDER_ITEMS
from upbit_backbone.simulator import FakeUpbit

TICKER, TRADE = DataType.TICKER, DataType.TRADE
TRADES = "{upbit}:stream:trade:KRW-BTC"
Start = Callable[..., Relay]


@pytest.fixture
def start(upbit: FakeUpbit, server: RedisServer) -> Iterator[Start]:
    """A relay with a backbone of its own, as in a process of its own."""
    made: list[tuple[Relay, MarketDataBackbone]] = []

    def start_one(types: Any = (TICKER, TRADE), **options: Any) -> Relay:
        market = MarketDataBackbone(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url)
        try:
            relay = Relay(market, server.url, MARKETS, types, **options)
        except BaseException:
            market.close()
            raise
        made.append((relay, market))
        return relay

    yield start_one
    for relay, market in made:
        relay.close()
        market.close()


def trades_in(server: RedisServer, stream: str = TRADES) -> list[TradeData]:
    """Read as the documentation says."""
    messages = (json.loads(fields["data"], parse_float=Decimal) for _, fields in server.client.xrange(stream))
    return [DataUnifier().unify_trade_data(message, DataSource.RELAY) for message in messages]


def check_complete(upbit: FakeUpbit, server: RedisServer) -> None:
    """Every trade that the simulator made between the first and the last in the stream comes into it, and once."""
    times = [round(trade.timestamp.timestamp() * 1000) for trade in trades_in(server)]
    # What shares the first or last millisecond may have come before the first relay did, or be still to come.
    made = {each["sequential_id"] for each in upbit.trades("KRW-BTC", min(times) + 1, max(times) - 1)}
    assert made
    wait_until(lambda: made <= {trade.sequential_id for trade in trades_in(server)}, "every trade")
    numbers = [trade.sequential_id for trade in trades_in(server)]
    assert len(set(numbers)) == len(numbers)


# --- what is published ---


def test_latest_values_lie_in_hashes_exactly_as_they_came(
    market: MarketDataBackbone, server: RedisServer, upbit: FakeUpbit
) -> None:
    kinds = {"ticker": TickerData, "orderbook": OrderbookData, "candle.1m": CandleData}
    with market.subscribe("KRW-BTC", TICKER) as tickers, Relay(market, server.url, ["KRW-BTC"], list(kinds)) as relay:
        assert relay.is_leading
        for kind, model in kinds.items():
            found = wait_until(lambda kind=kind: server.client.hgetall(f"{{upbit}}:latest:{kind}:KRW-BTC"), kind)
            item = model.from_json(found["data"])
            assert item.symbol == "KRW-BTC"
            assert found["source"] == item.source.value == "websocket"
            assert int(found["exchange_time"]) == round(item.timestamp.timestamp() * 1000)
            assert int(found["received_at"]) == round(item.received_at.timestamp() * 1000)
            assert found["epoch"] == "1"
        upbit.pause()
        while True:  # the last that came
            last = tickers.get(timeout=30)
            if not tickers.queue.qsize():
                break
        assert isinstance(last.current_price, Decimal)
        wait_until(
            lambda: (
                TickerData.from_json(server.client.hget("{upbit}:latest:ticker:KRW-BTC", "data")).timestamp
                >= last.timestamp
            ),
            "the last ticker",
        )
        assert relay.stats.lost == relay.stats.dropped == 0


def test_trades_lie_in_a_stream_each_once(start: Start, server: RedisServer, upbit: FakeUpbit) -> None:
    start()
    wait_until(lambda: server.client.xlen(TRADES) >= 20, "twenty trades")
    check_complete(upbit, server)


def test_the_documentation_shows_how_another_program_reads_a_stream(start: Start, server: RedisServer) -> None:
    start()
    wait_until(lambda: server.client.xlen(TRADES) >= 20, "twenty trades")
    page = (DOCS / "en" / "recipes" / "several-programs.md").read_text("utf-8")
    (code,) = (code for kind, code in load("twins").blocks(page) if kind == "python" and "xrange" in code)
    names: dict[str, Any] = {}
    exec(compile(code, "several-programs", "exec"), names)  # noqa: S102 - our own page
    with redis.Redis.from_url(server.url) as client:
        trades = names["last_trades"](client, "KRW-BTC")
    assert trades == trades_in(server)[: len(trades)]
    assert len(trades) >= 20


def test_what_clients_ask_for_and_the_markets_of_a_currency_do_not_take_turns(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = {"look_seconds": 0.05, "first_look_seconds": 0.05}
    make = market_watch.MarketWatch
    monkeypatch.setattr(market_watch, "MarketWatch", lambda *parts, **more: make(*parts, **more, **looks))
    server.client.zadd("{upbit}:demand", {"trade:BTC-ETH": 9e15})
    with (
        FakeUpbit(markets=["KRW-BTC", "BTC-ETH"], trades_per_second=0, ban_after=0) as upbit,
        MarketDataBackbone(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url) as market,
        Relay(market, server.url, None, TRADE, quote="KRW"),
    ):

        def said() -> int:
            return sum(entry["kind"] == "message" for entry in upbit.wire_log())

        def looks_pass() -> None:
            had = len(upbit.requests("/v1/market/all"))
            wait_until(lambda: len(upbit.requests("/v1/market/all")) >= had + 20, "looks at the list")

        wait_until(lambda: upbit.subscribed() == {("trade", "KRW-BTC"), ("trade", "BTC-ETH")}, "both")
        before = said()
        looks_pass()
        assert said() == before  # each message has Upbit begin anew, and gaps be looked for
        upbit.list_market("KRW-NEW")
        wait_until(lambda: ("trade", "KRW-NEW") in upbit.subscribed(), "what was listed")
        upbit.delist("KRW-BTC")
        wait_until(lambda: upbit.subscribed() == {("trade", "KRW-NEW"), ("trade", "BTC-ETH")}, "without what is gone")


def test_what_clients_ask_for_goes_on_when_redis_comes_back_without_its_memory(
    start: Start, server: RedisServer, upbit: FakeUpbit
) -> None:
    server.client.zadd("{upbit}:demand", {"orderbook:KRW-BTC": 9e15})
    relay = start(TRADE)
    wait_until(lambda: ("orderbook", "KRW-BTC") in upbit.subscribed(), "what is asked for")

    def said() -> int:
        return sum(entry["kind"] == "message" for entry in upbit.wire_log())

    before = said()
    server.kill()
    wait_until(lambda: relay.stats.error, "Redis is missed")
    server.start()
    wait_until(lambda: server.client.exists("{upbit}:leader"), "the relay is back")
    heard = server.client.hget("{upbit}:status", "heartbeat")
    wait_until(lambda: server.client.hget("{upbit}:status", "heartbeat") != heard, "a renewal more")
    # Those who ask again find what they had, and Upbit was not made to begin anew.
    server.client.zadd("{upbit}:demand", {"orderbook:KRW-BTC": 9e15})
    assert said() == before
    assert ("orderbook", "KRW-BTC") in upbit.subscribed()


def test_a_redis_that_lost_its_memory_is_told_the_last_trades_again_and_whoever_listens_is_not(
    start: Start, server: RedisServer, upbit: FakeUpbit
) -> None:
    relay = start(TRADE)
    wait_until(lambda: len(trades_in(server)) > 20, "trades")
    upbit.pause()
    newest = upbit.publish_trade("KRW-BTC")["sequential_id"]
    wait_until(lambda: trades_in(server)[-1].sequential_id == newest, "all is there")
    before, changes = trades_in(server), relay.stats.changes
    with server.client.pubsub() as heard:
        heard.subscribe("{upbit}:live", "{upbit}:live:trade:KRW-BTC")
        server.client.flushall()
        token = ""
        # The first heartbeat of the new lease says that all is there.
        while relay.stats.changes == changes or token != str(relay.stats.token):
            message = wait_until(lambda: heard.get_message(ignore_subscribe_messages=True, timeout=1), "more")
            assert message["channel"] == "{upbit}:live", "a trade was told once more"
            token = message["data"].partition(" ")[0]
    again = trades_in(server)
    assert len(again) >= OLDER_ITEMS
    assert again == before[-len(again) :]


def test_who_takes_over_says_that_it_leads_after_all_that_it_has(start: Start, server: RedisServer) -> None:
    first, second = start(TICKER), start(TICKER)
    wait_until(lambda: len(second._states) == len(MARKETS), "the second has all")
    with server.client.pubsub() as heard:
        heard.subscribe("{upbit}:live", *(f"{{upbit}}:live:ticker:{symbol}" for symbol in MARKETS))
        token = str(first.stats.token)
        first.close()
        wait_until(lambda: second.is_leading, "the second leads")
        told: list[str] = []
        while str(second.stats.token) not in told:
            message = wait_until(lambda: heard.get_message(ignore_subscribe_messages=True, timeout=1), "more")
            is_pulse = message["channel"] == "{upbit}:live"
            told.append(message["data"].partition(" ")[0] if is_pulse else message["channel"])
    shown = told[len(told) - told[::-1].index(token) :] if token in told else told
    assert {f"{{upbit}}:live:ticker:{symbol}" for symbol in MARKETS} <= set(shown)


def test_who_leads_anew_publishes_what_it_has_though_the_rest_of_that_renewal_failed(
    start: Start, server: RedisServer, upbit: FakeUpbit, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = start(TICKER)
    hashes = [f"{{upbit}}:latest:ticker:{symbol}" for symbol in MARKETS]
    wait_until(lambda: server.client.exists(*hashes) == len(hashes), "all is there")
    upbit.pause()
    changes, demanded, failures = relay.stats.changes, relay._store.demanded, []

    def fails_once() -> Any:
        if relay.stats.changes > changes and not failures:
            failures.append("once")
            raise NetworkError("Redis is away for a moment")
        return demanded()

    monkeypatch.setattr(relay._store, "demanded", fails_once)
    server.client.flushall()
    wait_until(lambda: server.client.exists(*hashes) == len(hashes), "all is there again")
    assert failures


def test_streams_are_capped(start: Start, server: RedisServer, upbit: FakeUpbit) -> None:
    relay = start(TRADE, kept=100)
    wait_until(lambda: server.client.xlen(TRADES), "the stream flows")
    upbit.burst("KRW-BTC", 2_000)
    wait_until(lambda: relay.stats.published >= 2_000, "two thousand trades")
    assert server.client.xlen(TRADES) <= 300  # Redis drops whole nodes of a hundred
    assert server.client.zcard("{upbit}:ids:trade:KRW-BTC") <= 200


@pytest.mark.slow
def test_candles_lie_in_a_stream_once_they_are_closed(start: Start, server: RedisServer) -> None:
    start("candle.1s")
    stream = "{upbit}:stream:candle.1s:KRW-BTC"
    wait_until(lambda: server.client.xlen(stream) >= 2, "two closed candles")
    entries = [fields for _, fields in server.client.xrange(stream)]
    messages = [json.loads(fields["data"], parse_float=Decimal) for fields in entries]
    candles = [DataUnifier().unify_candle_data(each, DataSource.RELAY, timeframe="1s") for each in messages]
    starts = [candle.timestamp for candle in candles]
    assert starts == sorted(set(starts))
    assert [fields["id"] for fields in entries] == [str(round(start.timestamp() * 1000)) for start in starts]


def test_the_status_says_what_is_not_current_and_each_line_is_another_epoch(
    start: Start, server: RedisServer, upbit: FakeUpbit
) -> None:
    relay = start(TICKER)

    def status() -> dict[str, str]:
        found: dict[str, str] = server.client.hgetall("{upbit}:status")
        return found

    wait_until(lambda: status()["stale"] == "[]", "all is current")
    assert status()["relay"] == relay.name
    assert status()["topics"] == "2"
    before = int(status()["heartbeat"])
    upbit.handshake_fault(times=None)
    upbit.close_sessions()
    wait_until(lambda: json.loads(status()["stale"]) == MARKETS, "nothing is current")
    upbit.clear_faults()
    wait_until(lambda: status()["stale"] == "[]", "all is current again")
    wait_until(lambda: server.client.hget("{upbit}:latest:ticker:KRW-BTC", "epoch") == "2", "the second epoch")
    assert int(status()["heartbeat"]) > before
    kinds = {fields["kind"] for _, fields in server.client.xrange("{upbit}:events")}
    assert "ConnectionEvent" in kinds


# --- several relays ---


def test_of_two_relays_one_publishes_and_the_other_goes_on_where_it_ends(
    start: Start, server: RedisServer, upbit: FakeUpbit
) -> None:
    first = start()
    wait_until(lambda: server.client.xlen(TRADES) >= 10, "ten trades")
    second = start()
    assert first.is_leading
    assert not second.is_leading
    wait_until(lambda: second.stats.waiting >= 10, "the second has what it may have to publish")
    first.close()
    wait_until(lambda: second.is_leading, "the second leads")
    wait_until(lambda: second.stats.published >= 50, "it publishes")
    assert second.stats.duplicates > 0  # it had remembered what the first had published
    assert first.stats.lost == second.stats.lost == 0
    check_complete(upbit, server)


@pytest.mark.slow
def test_when_the_leader_is_killed_another_goes_on_and_no_trade_is_lost_or_doubled(
    start: Start, server: RedisServer, upbit: FakeUpbit, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in upbit.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("UPBIT_BACKBONE_REDIS", server.url)
    command = [sys.executable, "-m", "upbit_backbone.cli", "relay", "--symbols", ",".join(MARKETS), "--types", "trade"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as leader:
        try:
            assert leader.stdout is not None
            assert "leads" in leader.stdout.readline()
            wait_until(lambda: server.client.xlen(TRADES) >= 20, "twenty trades")
            second = start(TRADE)
            wait_until(lambda: second.stats.waiting >= 10, "the second has what it may have to publish")
            assert not second.is_leading
        finally:
            leader.kill()
    wait_until(lambda: second.is_leading, "the second leads")
    before = server.client.xlen(TRADES)
    wait_until(lambda: server.client.xlen(TRADES) >= before + 20, "it publishes")
    check_complete(upbit, server)


def test_no_trade_that_was_passed_on_is_left_to_the_collector(start: Start) -> None:
    # The command has it look once a minute, so whatever goes round in circles would stay for so long.
    relay = start(TRADE)
    before = relay.stats.published
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        wait_until(lambda: relay.stats.published >= before + 50, "fifty trades")
        relay.close()
        gc.collect()
        assert not [each for each in gc.garbage if isinstance(each, TradeData)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


# --- a server that fails ---


def test_while_redis_is_gone_what_comes_waits_for_its_return(
    start: Start, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    relay = start()
    first = relay.stats.token
    wait_until(lambda: relay.stats.published > 20, "it publishes")
    server.kill()
    wait_until(lambda: relay.stats.error, "it knows")
    waiting = relay.stats.waiting
    wait_until(lambda: relay.stats.waiting > waiting + 20, "trades wait")
    server.start()
    wait_until(lambda: relay.stats.error is None and relay.stats.token != first, "it leads again")
    assert relay.stats.token is not None
    assert first is not None
    assert relay.stats.token > first  # though Redis has lost what it knew
    wait_until(lambda: server.client.hget("{upbit}:latest:ticker:KRW-ETH", "data"), "the latest values are there again")
    wait_until(lambda: server.client.xlen(TRADES) > 20, "what waited is there")
    assert relay.stats.lost == relay.stats.dropped == 0
    waits = [each for each in caplog.records if each.getMessage().startswith("the relay waits")]
    assert len(waits) == 1  # told once, not with each attempt


def test_what_redis_does_not_say_that_it_has_is_sent_again_and_published_once(
    start: Start, server: RedisServer, upbit: FakeUpbit, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = start()
    wait_until(lambda: relay.stats.published > 20, "it publishes")
    heard, lost = relay._store.added, Flag()

    def lose_the_answer() -> int:
        added = heard()
        if added and not lost.is_set():
            lost.set()
            raise NetworkError("the answer to what was written is lost")
        return added

    monkeypatch.setattr(relay._store, "added", lose_the_answer)
    wait_until(lost.is_set, "an answer is lost")
    published = relay.stats.published
    wait_until(lambda: relay.stats.error is None and relay.stats.published > published + 20, "it goes on")
    assert relay.stats.duplicates
    assert relay.stats.lost == 0
    check_complete(upbit, server)


def test_a_server_that_is_full_is_told_and_tried_again(start: Start, server: RedisServer) -> None:
    relay = start()
    wait_until(lambda: relay.stats.published > 20, "it publishes")
    server.client.config_set("maxmemory", "1")
    wait_until(lambda: "maxmemory" in (relay.stats.error or ""), "it knows")
    server.client.config_set("maxmemory", "0")
    wait_until(lambda: relay.stats.error is None, "it goes on")
    published = relay.stats.published
    wait_until(lambda: relay.stats.published > published + 20, "it publishes again")
    assert relay.stats.lost == 0


def test_without_a_server_there_is_no_relay(market: MarketDataBackbone, server: RedisServer) -> None:
    server.kill()
    with pytest.raises(NetworkError, match=f"Redis at {server.socket} cannot be reached"):
        Relay(market, server.url, MARKETS)
    assert not market.health().subscriptions


# --- what is not ours ---


@pytest.mark.parametrize("found", ["upbit-backbone relay 1", "somebody else's"])
def test_a_prefix_of_another_version_or_program_is_refused_by_name_and_left_alone(
    start: Start, server: RedisServer, found: str
) -> None:
    server.client.set("{mine}:schema", found)
    with pytest.raises(InvalidRequestError, match=found):
        start(prefix="mine")
    assert server.client.keys("*") == ["{mine}:schema"]
    assert server.client.get("{mine}:schema") == found


@pytest.mark.parametrize("key", ["schema", "leader", "fence", "status", "events"])
def test_keys_of_another_kind_are_refused_and_left_alone(start: Start, server: RedisServer, key: str) -> None:
    server.client.rpush(f"{{mine}}:{key}", "a list")
    with pytest.raises(InvalidRequestError, match="choose another prefix"):
        start(prefix="mine")
    assert server.client.keys("*") == [f"{{mine}}:{key}"]
    assert server.client.lrange(f"{{mine}}:{key}", 0, -1) == ["a list"]


@pytest.mark.parametrize("prefix", ["", "with space", "brace{", "x" * 65, 5])
def test_a_prefix_is_what_redis_cluster_can_keep_together(
    market: MarketDataBackbone, server: RedisServer, prefix: Any
) -> None:
    with pytest.raises(InvalidRequestError, match="prefix"):
        Relay(market, server.url, MARKETS, prefix=prefix)


@pytest.mark.parametrize(
    "url", ["http://user:geheim@host", "redis://:geheim@host:port", "redis://:geheim@host:99999", "geheim", 5]
)
def test_what_is_no_url_of_redis_is_refused_without_repeating_it(market: MarketDataBackbone, url: Any) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        Relay(market, url, MARKETS)
    assert "geheim" not in str(refused.value)


def test_a_password_is_in_no_error_no_log_and_no_repr(
    market: MarketDataBackbone, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.client.config_set("requirepass", "geheim")
    wrong = f"unix://:ganz-geheim@{server.socket}"
    with pytest.raises(AuthenticationError) as refused:
        Relay(market, wrong, MARKETS)
    assert "geheim" not in str(refused.value)
    with Relay(market, f"unix://:geheim@{server.socket}", MARKETS) as relay:
        assert relay.is_leading
        assert "geheim" not in repr(relay) + repr(relay.stats)
    assert "geheim" not in caplog.text


# --- the end, and the command ---


def test_it_ends_with_its_backbone_and_gives_the_lead_back(market: MarketDataBackbone, server: RedisServer) -> None:
    relay = Relay(market, server.url, MARKETS)
    market.close()
    wait_until(lambda: relay.closed and server.client.get("{upbit}:leader") is None, "it has ended")
    relay.close()
    assert not relay.is_leading


def test_the_command_publishes_and_reports(
    upbit: FakeUpbit, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in upbit.environment().items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "upbit_backbone.cli", "relay", "--redis", server.url]
    done = subprocess.run(
        [*command, "--quote", "KRW", "--types", "ticker,trade", "--seconds", "2", "--json"],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["published"] > 0
    assert server.client.exists("{upbit}:latest:ticker:KRW-ETH", TRADES) == 2
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2
    assert "--quote" in done.stderr
